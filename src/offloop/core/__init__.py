"""What decides: pure state machines without sockets, clocks, threads or processes."""
