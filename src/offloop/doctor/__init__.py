"""The command ``offloop doctor``: is this machine fit, and what does a call cost."""
