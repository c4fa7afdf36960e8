"""How each peer's own documentation classifies a folder, one small script per peer.

Every script runs in the peer's environment: it may import the standard library, the peer, and benchmarks.race.job, and
nothing of mribatch. No code of a peer is copied; each docstring names the page that the script follows.
"""
