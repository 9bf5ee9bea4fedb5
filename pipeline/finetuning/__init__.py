"""Stage three: fine-tuning of a trunk's last stages, started from a fitted head."""
