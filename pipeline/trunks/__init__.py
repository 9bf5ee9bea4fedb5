"""Trunks: from pixels to features."""
