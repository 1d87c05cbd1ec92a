//! Parts of objects with ways of their own: scale, log, proxy, binding, eviction, finalize. `/status` and
//! its like are ordinary writes of one part and need nothing here.

mod binding;
mod eviction;
mod finalize;
mod log;
mod proxy;
mod scale;
