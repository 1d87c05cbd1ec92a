//! The `coracle` binary: every program is a subcommand of it.
//!
//! The two roles that live for ever, keeper and shim, are dispatched before anything else exists
//! (argument parser, logging, runtime), so that they stay as small as they are.

mod apply;
mod apply_set;
mod chaos;
mod cli;
mod cluster;
mod directories;
mod down;
mod ended;
mod events;
mod fault;
mod image;
mod kubeconfig;
mod kustomization;
mod lock;
mod logs;
mod manifest;
mod nodes;
mod open;
mod output;
mod own;
mod procfile;
mod progress;
mod project;
mod prune;
mod published;
mod queue;
mod registry;
mod removal;
mod session;
mod snapshot;
mod start;
mod status;
mod top;
mod up;
mod urls;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let called = arguments.next();
    if let Some(program) = called.as_deref().and_then(queue::Program::called) {
        return program.main(arguments);
    }
    match arguments.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("shim") => shim::main(arguments),
        Some("keeper") => keeper::main(arguments),
        // Of the cluster process, and without the environment that the parser's commands want.
        Some(::image::worker::SUBCOMMAND) => image::worker(),
        Some(removal::SUBCOMMAND) => removal::main(arguments),
        Some("queue") => match arguments.next().as_deref().and_then(queue::Program::called) {
            // Its flags are none of the parser's: `-http-address` is not `-h`.
            Some(program) => program.main(arguments),
            None => cli::main(),
        },
        _ => cli::main(),
    }
}
