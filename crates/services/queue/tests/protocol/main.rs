//! The protocol over real sockets: what clients are promised, what they are refused, what is
//! negotiated, and that nobody suffers from others.

#[cfg(test)]
mod client;
#[cfg(test)]
mod delivery;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod negotiation;
#[cfg(test)]
mod rr;
