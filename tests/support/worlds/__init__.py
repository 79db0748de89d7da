"""Catalogues, hosts and images made for many tests, with and without servers."""
