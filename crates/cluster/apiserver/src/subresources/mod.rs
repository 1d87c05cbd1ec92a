//! Parts of objects with ways of their own: scale, log, binding, finalize. `/status` is an
//! ordinary write of one part and needs nothing here.

mod binding;
mod finalize;
mod log;
mod scale;
