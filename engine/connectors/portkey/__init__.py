"""portkey."""
