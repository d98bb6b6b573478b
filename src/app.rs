//! Wiring: the one file that sees everything.
