//! Calls to providers: pools, TLS, the hand-built HTTP/1.1 client codec, deadlines.
