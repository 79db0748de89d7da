"""What hosts hold: this one's directory, and another's over HTTP."""
