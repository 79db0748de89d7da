"""What goes over a network: one request and its checked answer, and the reader of plain http(s) URLs."""
