//! What an empty cluster costs while nothing happens.

use std::time::Duration;

use anyhow::ensure;

use crate::{
    cluster::Cluster,
    processes::{self, Activity, Moment, Process, Role},
    report::{Aim, Figure},
};

/// After a start, until caches are warm and the last timers of starting have fired.
const SETTLE: Duration = Duration::from_secs(5);

/// Watches the processes for `period`.
pub(crate) async fn measure(cluster: &Cluster, period: Duration) -> anyhow::Result<Vec<Figure>> {
    tokio::time::sleep(SETTLE).await;
    let processes = cluster.processes()?;
    let is = |role| move |it: &&Process| it.role == role;
    ensure!(processes.iter().any(|it| it.role == Role::Cluster), "no cluster process is found");
    let before = Moment::now(&processes)?;
    tokio::time::sleep(period).await;
    let Activity { cpu_nanoseconds, switches } = Moment::now(&processes)?.since(&before);
    let seconds = period.as_secs_f64();
    let cpu = Duration::from_nanos(cpu_nanoseconds);
    let all = processes::memory(&processes)?;
    let main = processes::memory(processes.iter().filter(is(Role::Cluster)))?;
    let keepers: Vec<_> = processes.iter().filter(is(Role::Keeper)).collect();
    let (count, keepers) = (keepers.len(), processes::memory(keepers)?);
    Ok(vec![
        Figure::size("resident, cluster and keepers", all.resident).aim(Aim::AtMost(25.0)),
        Figure::size("proportional, cluster and keepers", all.proportional),
        Figure::size("private dirty, cluster", main.private_dirty),
        Figure::size(format!("private dirty, {count} keepers"), keepers.private_dirty),
        Figure::new("processor, of one core", cpu.as_secs_f64() / seconds * 100.0, "%")
            .aim(Aim::AtMost(0.1)),
        Figure::new("context switches", switches as f64 / seconds, "1/s").aim(Aim::AtMost(2.0)),
    ])
}
