//! The specification of a pod, which pods have and everything that makes pods has as a template:
//! its defaults and its rules. What only a pod itself may have is in [`pod`](super::pod).

mod container;
mod default;
mod env;
mod placement;
mod probe;
mod resources;
mod security;
mod validate;
mod volume;
mod warnings;

#[cfg(test)]
mod tests;

pub(super) use self::{
    default::default,
    placement::{node_selector, tolerations},
    resources::{amount, resource_name},
    validate::{any_template, template, template_is_selected, validate},
    volume::host_path,
    warnings::warnings,
};
