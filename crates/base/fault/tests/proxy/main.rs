//! The proxy as clients, servers and users of its API see it.

#[cfg(test)]
mod control;
#[cfg(test)]
mod random;
#[cfg(test)]
mod sockets;
#[cfg(test)]
mod support;
