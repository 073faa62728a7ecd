"""The Files server. It imports `filesfs.wire`, and nothing else of filesfs."""
