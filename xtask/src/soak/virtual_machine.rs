//! Tests in a virtual machine: on Debian's kernel with control groups of version 2 only, as they are on
//! every current distribution, whatever the machine has that builds this.
//!
//! Its processor is emulated. That takes three seconds to boot and needs no right to anything, where
//! `/dev/kvm` is missing in many containers, and in some virtual machines is there and does not work.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
};

use anyhow::Context as _;

use crate::{
    process,
    tools::{self, Kernel},
};

/// The programs that are needed: packages of Debian, and their programs.
pub(super) const NEEDED: [(&str, &str); 4] = [
    ("qemu-system-x86", EMULATOR),
    ("busybox-static", "busybox"),
    ("apparmor", "apparmor_parser"),
    ("btrfs-progs", "mkfs.btrfs"),
];
const EMULATOR: &str = "qemu-system-x86_64";

/// The profile of AppArmor that a test needs, in the repository.
const PROFILE: &str = "tests/machine/apparmor";

/// What rules of a profile can be about, of Debian's kernels: the kernel here may know none of it.
const FEATURES: &str = "/usr/share/apparmor-features/features";

/// Size of the disk, which has nothing on it but what the tests write.
const DISK_BYTES: u64 = 3 << 30;

/// What of the kernel's modules a cluster may want: the network, overlays, a disk, and what they are made
/// of.
const MODULES: [&str; 11] = [
    "kernel/arch/x86/crypto",
    "kernel/crypto",
    "kernel/drivers/block/virtio_blk.ko",
    "kernel/drivers/net/veth.ko",
    "kernel/drivers/virtio",
    "kernel/fs/btrfs",
    "kernel/fs/overlayfs",
    "kernel/lib",
    "kernel/net/ipv4/netfilter",
    "kernel/net/ipv6/netfilter",
    "kernel/net/netfilter",
];

/// Longest run, in seconds: what does not end is ended.
const SECONDS_MAX: &str = "900";

/// What the machine says at its end: how the tests ended.
pub(super) const ENDED: &str = "tests-ended:";

/// Leaves the kernel's first file system, in which no root can be changed.
const FIRST: &str = "#!/bin/busybox sh
/bin/busybox mkdir /new
/bin/busybox mount -t tmpfs -o mode=755 root /new
/bin/busybox cp -a /system/. /new
exec /bin/busybox switch_root /new /sbin/init
";

/// Makes a machine of it, and runs the tests that are named in place of `TESTS`, one after the other.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin HOME=/root CORACLE=/usr/bin/coracle KUBECTL=/usr/bin/kubectl OWN_MACHINE=1
mount -t devtmpfs devices /dev
mkdir /dev/pts /dev/shm
mount -t devpts terminals /dev/pts
mount -t tmpfs memory /dev/shm
mount -t proc processes /proc
mount -t sysfs system /sys
mount -t securityfs security /sys/kernel/security
mount -t tmpfs run /run
mount -t cgroup2 -o nsdelegate,memory_recursiveprot groups /sys/fs/cgroup
dmesg -n 1
ip link set lo up
hostname virtual
# The kernel takes a profile in one piece only.
dd if=/etc/apparmor of=/sys/kernel/security/apparmor/.load bs=1M conv=notrunc 2>/dev/null
modprobe virtio_pci; modprobe virtio_blk; modprobe btrfs
mkdir /disk
until [ -b /dev/vda ]; do usleep 10000; done
mount -t btrfs /dev/vda /disk
export TMPDIR=/disk
failed=0
for test in TESTS; do
    machine --list $test | grep -q ': test$' || { echo \"no test $test\"; failed=1; }
    machine --color=never $test || failed=1
done
echo ENDED$failed
poweroff -f
";

/// The command that boots a machine, which runs these tests of the program `machine`, and says at the end
/// [`ENDED`] and `0`, or another number if one failed. The folder is for its files.
pub(super) fn command(
    root: &Path,
    folder: &Path,
    programs: &[(&str, &Path)],
    tests: &[&str],
) -> anyhow::Result<Command> {
    let kernel = tools::kernel(root)?;
    let files = folder.join("files");
    let system = files.join("system");
    for name in ["dev", "etc", "proc", "root", "run", "sbin", "sys", "tmp", "usr/bin", "bin"] {
        let path = system.join(name);
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
    }
    fs::create_dir(files.join("bin")).context("create a folder")?;
    fs::set_permissions(system.join("tmp"), fs::Permissions::from_mode(0o1777))
        .context("let everybody use /tmp")?;
    let busybox = process::read(Command::new("sh").args(["-c", "command -v busybox"]))?;
    copy(Path::new(busybox.trim()), &files.join("bin/busybox"))?;
    copy(Path::new(busybox.trim()), &system.join("bin/busybox"))?;
    symlink("/bin/busybox", system.join("sbin/modprobe")).context("link modprobe")?;
    for (name, program) in programs {
        copy(program, &system.join("usr/bin").join(name))?;
    }
    let init = INIT.replace("TESTS", &tests.join(" ")).replace("ENDED", ENDED);
    for (path, text) in [(files.join("init"), FIRST), (system.join("sbin/init"), &init)] {
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).context("set a mode")?;
    }
    modules(&kernel, &system)?;
    // Without the kernel's own features, and caches of what was compiled for it.
    let mut command = Command::new("apparmor_parser");
    command.args(["--skip-kernel-load", "--skip-cache", "--features-file", FEATURES, "--ofile"]);
    process::run(command.arg(system.join("etc/apparmor")).arg(root.join(PROFILE)))?;
    let archive = folder.join("files.cpio");
    let pack = "cd \"$0\" && find . | busybox cpio -o -H newc 2>/dev/null >\"$1\"";
    process::run(Command::new("sh").args(["-c", pack]).args([&files, &archive]))?;
    fs::remove_dir_all(&files).with_context(|| format!("remove {}", files.display()))?;
    let disk = folder.join("disk");
    fs::File::create_new(&disk)
        .and_then(|it| it.set_len(DISK_BYTES))
        .with_context(|| format!("create {}", disk.display()))?;
    // Even so it notes what is new in it.
    process::read(Command::new("mkfs.btrfs").arg("--quiet").arg(&disk))?;
    Ok(emulate(&kernel, &archive, &disk))
}

fn modules(kernel: &Kernel, system: &Path) -> anyhow::Result<()> {
    let release = kernel.modules.file_name().context("the kernel's release")?;
    let place = Path::new("lib/modules").join(release);
    for name in MODULES {
        let to = system.join(&place).join(name);
        let folder = to.parent().context("a module's folder")?;
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        process::run(Command::new("cp").arg("-r").arg(kernel.modules.join(name)).arg(&to))?;
    }
    for name in ["modules.builtin", "modules.order"] {
        copy(&kernel.modules.join(name), &system.join(&place).join(name))?;
    }
    let mut command = Command::new("busybox");
    process::run(command.arg("depmod").arg("-b").arg(system).arg(release))
}

fn emulate(kernel: &Kernel, archive: &Path, disk: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.args([SECONDS_MAX, EMULATOR, "-accel", "tcg", "-cpu", "max", "-smp", "2"]);
    command.args(["-m", "3072", "-nodefaults", "-no-user-config", "-no-reboot"]);
    command.args(["-display", "none", "-serial", "stdio"]);
    let disk = format!("file={},format=raw,if=virtio,cache=unsafe", disk.display());
    command.args(["-drive", &disk]);
    command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(archive);
    command.args(["-append", "console=ttyS0 quiet panic=-1 rdinit=/init cgroup_no_v1=all"]);
    command
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::copy(from, to).map(drop).with_context(|| format!("copy {}", from.display()))
}
