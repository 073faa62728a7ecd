"""The read path: which bytes to fetch, fetching them once, keeping them."""
