"""Where jobs run: one file per place. The pool loads the one it needs by its name."""
