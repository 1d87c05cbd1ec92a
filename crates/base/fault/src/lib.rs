//! A TCP proxy that misbehaves on request, and a checker of what a client was promised.
