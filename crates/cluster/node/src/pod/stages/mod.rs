//! The stages, in the order in which a pod's place is made.

pub(super) mod cgroup;

pub(super) mod sandbox;

pub(super) mod network;

pub(super) mod volumes;

pub(super) mod files;

pub(super) mod containers;
