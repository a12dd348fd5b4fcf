"""What a prompt costs: this engine beside other ways to send the same two requests."""
