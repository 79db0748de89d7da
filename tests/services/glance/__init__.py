"""Glance: sites with their hosts, how hosts are started, and who calls them."""
