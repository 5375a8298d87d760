"""``offloop top``: what a running pool, program or cluster does, live in a terminal."""
