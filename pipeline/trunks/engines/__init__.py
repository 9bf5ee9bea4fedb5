"""What runs a network: PyTorch or OpenVINO, and where."""
