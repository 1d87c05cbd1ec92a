//! The pod's `/etc/resolv.conf` and `/etc/hosts`.

use std::{fs, io, path::PathBuf};

use shim::wire::Root;

use super::super::stage::{Launch, Parts, Phase, Place, Stage, StageError};
use crate::{
    context::is_on_host,
    files::{OwnFiles, hosts, hosts_on_host, resolv_conf},
};

/// See the module.
pub(crate) struct PodFiles;

impl Stage for PodFiles {
    fn name(&self) -> &'static str {
        "files"
    }

    fn prepare<'a>(&'a self, place: &'a Place, parts: &'a mut Parts) -> Phase<'a> {
        let written = write(place, parts).map_err(StageError::sandbox);
        Box::pin(std::future::ready(written))
    }

    fn start<'a>(
        &'a self,
        place: &'a Place,
        _parts: &'a Parts,
        launch: &'a mut Launch,
    ) -> Phase<'a> {
        if let Some(pod) = &place.pod {
            let own = OwnFiles::of(pod);
            // Linked source has the machine's own before its eyes, an image has them not.
            let image = launch.spec.root != Root::Host;
            let of_machine = |file: &str| image.then(|| PathBuf::from(file));
            let files = [
                (own.resolv_conf, RESOLV_CONF, RESOLV_CONF_OF_MACHINE),
                (own.hosts, HOSTS, HOSTS_OF_MACHINE),
            ];
            let [resolv_conf, hosts] =
                files.map(
                    |(own, name, machine)| {
                        if own { Some(path(place, name)) } else { of_machine(machine) }
                    },
                );
            (launch.spec.resolv_conf, launch.spec.hosts) = (resolv_conf, hosts);
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

const RESOLV_CONF: &str = "resolv.conf";
const HOSTS: &str = "hosts";
const RESOLV_CONF_OF_MACHINE: &str = "/etc/resolv.conf";
const HOSTS_OF_MACHINE: &str = "/etc/hosts";

fn path(place: &Place, name: &str) -> PathBuf {
    place.folders.state.join(name)
}

/// Writes in place: the files are mounted by inode into containers that may run already.
fn write(place: &Place, parts: &Parts) -> io::Result<()> {
    let (Some(pod), Some(address)) = (&place.pod, parts.address) else { return Ok(()) };
    let (dns, own) = (&place.context.dns, OwnFiles::of(pod));
    if own.resolv_conf {
        let host = place.context.network.host_resolver();
        fs::write(path(place, RESOLV_CONF), resolv_conf(pod, dns, &host))?;
    }
    if own.hosts {
        let text = if is_on_host(pod) {
            hosts_on_host(pod, &fs::read_to_string(HOSTS_OF_MACHINE)?)
        } else {
            hosts(pod, address, &dns.domain)
        };
        fs::write(path(place, HOSTS), text)?;
    }
    Ok(())
}
