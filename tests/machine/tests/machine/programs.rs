//! Programs that people run: nginx, PostgreSQL and a service in Python, as pods of images that are made
//! here of Debian's packages.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, TcpStream, UdpSocket},
    process::{Child, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::{
    cluster::{Cluster, debian_systems, eventually},
    host::{kill, processes},
    run::free_port,
};

/// The web server: nothing of its root can be written, it is nobody special and may do nothing special.
const NGINX: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: site}
data:
  index.html: "<h1>From a ConfigMap</h1>\n"
  nginx.conf: |
    daemon off;
    pid /tmp/nginx.pid;
    worker_processes 2;
    error_log /dev/stderr notice;
    events {}
    http {
      access_log /dev/stdout;
      client_body_temp_path /tmp/body;
      proxy_temp_path /tmp/proxy;
      fastcgi_temp_path /tmp/fastcgi;
      uwsgi_temp_path /tmp/uwsgi;
      scgi_temp_path /tmp/scgi;
      server {
        listen 80;
        location / { root /site; }
        location = /ready { access_log off; return 204; }
      }
    }
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      securityContext:
        runAsNonRoot: true
        runAsUser: 101
        runAsGroup: 101
        seccompProfile: {type: RuntimeDefault}
      containers:
      - name: nginx
        image: test/nginx:1
        securityContext:
          readOnlyRootFilesystem: true
          allowPrivilegeEscalation: false
          capabilities: {drop: [ALL]}
        ports: [{name: http, containerPort: 80}]
        readinessProbe: {httpGet: {path: /ready, port: http}, periodSeconds: 1}
        volumeMounts:
        - {name: site, mountPath: /etc/nginx/nginx.conf, subPath: nginx.conf}
        - {name: site, mountPath: /site}
        - {name: scratch, mountPath: /tmp}
      volumes:
      - {name: site, configMap: {name: site}}
      - {name: scratch, emptyDir: {medium: Memory}}
"#;

/// The same server as root, whose workers become somebody who may not read the page.
const NGINX_AS_ROOT: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: rooted}
spec:
  selector: {app: rooted}
  ports: [{port: 80}]
---
apiVersion: v1
kind: Pod
metadata: {name: rooted, labels: {app: rooted}}
spec:
  containers:
  - name: nginx
    image: test/nginx:1
    args: [-g, "user nobody nogroup;"]
    readinessProbe: {httpGet: {path: /ready, port: 80}, periodSeconds: 1}
    volumeMounts:
    - {name: site, mountPath: /etc/nginx/nginx.conf, subPath: nginx.conf}
    - {name: site, mountPath: /site}
  volumes:
  - {name: site, configMap: {name: site, defaultMode: 0400}}
"#;

/// The image of the database.
const DATABASE: &str = "test/postgresql:1";

/// What PostgreSQL's own image does: an empty volume becomes a database, and then it serves.
const POSTGRESQL_ENTRY: &str = r#"#!/bin/sh
set -e
if ! test -s "$PGDATA/PG_VERSION"; then
    initdb --username=postgres --auth=trust --no-sync --no-locale --encoding=UTF8
    echo host all all all trust >> "$PGDATA/pg_hba.conf"
fi
exec postgres "$@"
"#;

const POSTGRESQL_FILE: &str = r#"
FROM test/postgresql-system:1
ARG VERSION
ENV PATH=/usr/lib/postgresql/$VERSION/bin:/bin PGDATA=/var/lib/postgresql/data/own
RUN while read -r name value; do test "$name" != Seccomp: || test "$value" = 2 || exit 1; done \
    < /proc/self/status
RUN echo postgres:x:999:999::/var/lib/postgresql:/bin/sh >> /etc/passwd
COPY --chmod=0755 entry /bin/entry
STOPSIGNAL SIGINT
ENTRYPOINT ["/bin/entry"]
"#;

const POSTGRESQL: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: database}
spec:
  selector: {app: database}
  ports: [{port: 5432}]
---
apiVersion: v1
kind: Pod
metadata: {name: database, labels: {app: database}}
spec:
  terminationGracePeriodSeconds: 60
  securityContext: {runAsUser: 999, runAsGroup: 999, fsGroup: 999}
  containers:
  - name: postgresql
    image: test/postgresql:1
    args: [-c, "listen_addresses=*", -c, "cluster_name=CLUSTER", -c, fsync=off, -c, jit=off]
    readinessProbe: {exec: {command: [pg_isready, --host=127.0.0.1]}, periodSeconds: 1}
    volumeMounts:
    - {name: data, mountPath: /var/lib/postgresql/data}
    - {name: run, mountPath: /var/run/postgresql}
  volumes:
  - {name: data, emptyDir: {}}
  - {name: run, emptyDir: {}}
"#;

/// A service of one file, which a ConfigMap brings; it uses what Python has compiled parts for.
const PYTHON: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: program}
data:
  service.py: |
    import http.server, json, multiprocessing, os, signal, sqlite3, ssl, sys
    lock = multiprocessing.Lock()
    table = sqlite3.connect("/tmp/table", check_same_thread=False)
    table.execute("create table asked (path)")
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            with lock:
                table.execute("insert into asked values (?)", [self.path])
                count = table.execute("select count(*) from asked").fetchone()[0]
            answer = {"greeting": os.environ["GREETING"], "user": os.getuid(), "asked": count}
            answer = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
    def stop(*_):
        print("stopped", flush=True)
        os._exit(0)
    signal.signal(signal.SIGTERM, stop)
    print("serving with", ssl.OPENSSL_VERSION, flush=True)
    http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
---
apiVersion: v1
kind: Service
metadata: {name: greeter}
spec:
  selector: {app: greeter}
  ports: [{port: 80, targetPort: 8000}]
---
apiVersion: v1
kind: Pod
metadata: {name: greeter, labels: {app: greeter}}
spec:
  securityContext: {runAsUser: 4000, runAsGroup: 4000}
  containers:
  - name: python
    image: test/python:1
    args: [/program/service.py]
    env: [{name: GREETING, value: hello}]
    readinessProbe: {httpGet: {path: /ready, port: 8000}, periodSeconds: 1}
    volumeMounts: [{name: program, mountPath: /program, readOnly: true}]
  volumes: [{name: program, configMap: {name: program}}]
"#;

/// Packs a system of Debian as the image `test/NAME:1`.
fn pack(cluster: &Cluster, system: &str, name: &str, options: &[&str]) -> anyhow::Result<()> {
    let folder = debian_systems()?.join(system).display().to_string();
    let tag = format!("test/{name}:1");
    cluster.coracle(&[&["image", "pack", &folder, "--tag", &tag], options].concat())?;
    Ok(())
}

/// What a port of this machine answers.
pub(crate) fn ask(port: u16, path: &str) -> anyhow::Result<String> {
    let mut connection = TcpStream::connect(("127.0.0.1", port))?;
    write!(connection, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}

/// As a user without rights everywhere; and as root, who alone has other users to become.
pub(crate) fn nginx_serves_a_config_map() -> anyhow::Result<()> {
    let cluster = Cluster::new("nginx")?;
    pack(&cluster, "nginx", "nginx", &["--entrypoint", "/usr/sbin/nginx"])?;
    let is_root = rustix::process::getuid().is_root();
    let (port, rooted) = (free_port()?, free_port()?);
    let mut publish = format!("publish:\n- {{service: web, port: 80, hostPort: {port}}}\n");
    let mut text = NGINX.to_owned();
    if is_root {
        publish += &format!("- {{service: rooted, port: 80, hostPort: {rooted}}}\n");
        text += &format!("---{NGINX_AS_ROOT}");
    }
    cluster.write("app.yaml", &text)?;
    cluster.write("coracle.yaml", &publish)?;
    cluster.coracle(&["up", "--detach", &cluster.work().display().to_string()])?;
    let answer = ask(port, "/")?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    ensure!(answer.contains("Server: nginx"), "{answer}");
    ensure!(answer.ends_with("<h1>From a ConfigMap</h1>\n"), "{answer}");
    ask(port, "/missing")?;
    let mut log = String::new();
    eventually("the requests are in the log", || {
        log = cluster.logs("deployment/web")?;
        Ok(log.contains("\"GET / HTTP/1.1\" 200") && log.contains("\"GET /missing HTTP/1.1\" 404"))
    })?;
    // From standard error, where errors go.
    ensure!(log.contains("open() \"/site/missing\" failed"), "{log}");
    if is_root {
        let answer = ask(rooted, "/")?;
        ensure!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        let log = cluster.logs("pod/rooted")?;
        ensure!(log.contains("(13: Permission denied)"), "{log}");
    }
    Ok(())
}

/// What `dig`, `curl` and `wrk` are to find; each line begins with what is asked.
const QUESTIONS: &str = r#"
A=$(dig +short web.default.svc.cluster.local)
echo tcp $(test $A = $(dig +short +tcp web.default.svc.cluster.local) && echo same)
echo search $(test $A = $(dig +short +search web) && echo same)
echo reverse $(dig +short -x $A)
echo service $(dig +short _http._tcp.web.default.svc.cluster.local SRV)
is() { case "$2" in $3) echo "$1" as expected ;; *) echo "$1" "$2" ;; esac; }
is six "$(dig web.default.svc.cluster.local AAAA)" '*status: NOERROR*ANSWER: 0*'
is nobody "$(dig nobody.default.svc.cluster.local)" '*status: NXDOMAIN*SOA*ns.dns.cluster.local.*'
echo host $(dig +short host.coracle.internal)
echo curl $(curl -s http://web/ http://$A/ http://web.default/)
LOAD=$(wrk --threads 1 --connections 8 --duration 1s http://web:80/)
is errors "errors: ${LOAD#*Socket errors}" "errors: $LOAD"
is wrk "${LOAD#*Non-2xx}" '*requests in 1*'
is ping "$(ping -c 3 -i 0.2 -W 5 HOST 2>&1)" '*PINGS*'
"#;

/// Programs for looking at networks agree that the cluster has one.
pub(crate) fn network_is_as_tools_expect() -> anyhow::Result<()> {
    let cluster = Cluster::new("tools")?;
    pack(&cluster, "nginx", "nginx", &["--entrypoint", "/usr/sbin/nginx"])?;
    pack(&cluster, "tools", "tools", &[])?;
    cluster.write("app.yaml", NGINX)?;
    cluster.coracle(&["up", "--detach", &cluster.work().display().to_string()])?;
    let host = address_of_host()?;
    // Without a network there is no way.
    let pings = if host.is_some() && may_ping()? { " 0% packet loss" } else { "Packet filtered" };
    let host = host.unwrap_or(IpAddr::from([192, 0, 2, 1])).to_string();
    let script = QUESTIONS.replace("HOST", &host).replace("PINGS", pings);
    let said = run(&cluster, "test/tools:1", &["/bin/sh", "-c", &script])?;
    let node = "jsonpath={.items[0].status.addresses[0].address}";
    let node = cluster.kubectl(&["get", "nodes", "--output", node])?;
    let page = "<h1>From a ConfigMap</h1>";
    let expected = format!(
        "tcp same\nsearch same\nreverse web.default.svc.cluster.local.\n\
         service 0 100 80 web.default.svc.cluster.local.\nsix as expected\nnobody as expected\n\
         host {node}\ncurl {page} {page} {page}\nerrors as expected\nwrk as expected\n\
         ping as expected\n"
    );
    ensure!(said == expected, "{said} instead of {expected}");
    Ok(())
}

/// An address of this machine by which others know it; none on a machine without a network.
fn address_of_host() -> anyhow::Result<Option<IpAddr>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // Nothing is sent: this asks which way it would be.
    match socket.connect("192.0.2.1:9") {
        Ok(()) => Ok(Some(socket.local_addr()?.ip())),
        Err(error) if error.kind() == std::io::ErrorKind::NetworkUnreachable => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether this user may ping.
fn may_ping() -> anyhow::Result<bool> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ping_group_range")?;
    let mut range = range.split_whitespace().map(str::parse::<u32>);
    let (first, last) = (range.next().context("a range")??, range.next().context("a range")??);
    let group = rustix::process::getgid().as_raw();
    Ok(rustix::process::getuid().is_root() || (first..=last).contains(&group))
}

/// Runs a command in a pod of an image to its end; gives its log.
fn run(cluster: &Cluster, image: &str, command: &[&str]) -> anyhow::Result<String> {
    let client = start(cluster, image, command)?;
    eventually("the client has ended", || {
        let phase = "jsonpath={.status.phase}";
        let phase = cluster.kubectl(&["get", "pod", &client, "--output", phase])?;
        Ok(["Succeeded", "Failed"].contains(&phase.as_str()))
    })?;
    cluster.logs(&format!("pod/{client}"))
}

/// Starts a command in a pod of an image; gives the name of the pod.
fn start(cluster: &Cluster, image: &str, command: &[&str]) -> anyhow::Result<String> {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let client = format!("client-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let image = format!("--image={image}");
    let run = ["run", &client, &image, "--restart=Never", "--command", "--"];
    cluster.kubectl(&[&run, command].concat())?;
    Ok(client)
}

/// How `psql` asks the database through its Service.
fn psql(statement: &str) -> [&str; 7] {
    let [host, user] = ["--host=database", "--username=postgres"];
    ["psql", host, user, "--no-align", "--tuples-only", "--command", statement]
}

fn query(cluster: &Cluster, statement: &str) -> anyhow::Result<String> {
    Ok(run(cluster, DATABASE, &psql(statement))?.trim().to_owned())
}

/// A database is made in an empty volume by a user of the image, is killed, recovers, and stops as it is
/// asked to while clients are connected.
pub(crate) fn postgresql_keeps_its_data() -> anyhow::Result<()> {
    let cluster = Cluster::new("postgresql")?;
    let versions = debian_systems()?.join("postgresql/usr/lib/postgresql");
    let version = fs::read_dir(&versions)?.next().context("no version of PostgreSQL")??;
    let version = version.file_name().to_string_lossy().into_owned();
    pack(&cluster, "postgresql", "postgresql-system", &[])?;
    cluster.write("Dockerfile", POSTGRESQL_FILE)?;
    cluster.write("entry", POSTGRESQL_ENTRY)?;
    let work = cluster.work().display().to_string();
    let argument = format!("VERSION={version}");
    cluster.coracle(&["image", "build", "--build-arg", &argument, "--tag", DATABASE, &work])?;
    cluster.write("app.yaml", &POSTGRESQL.replace("CLUSTER", &cluster.name))?;
    cluster.coracle(&["up", "--detach", &work])?;

    query(&cluster, "create table kept as select generate_series(1, 20000) as number")?;
    let parallel = "set parallel_setup_cost = 0; set parallel_tuple_cost = 0; \
                    set min_parallel_table_scan_size = 0; \
                    explain (analyze, costs off, timing off) select sum(number) from kept";
    // Workers share memory, which is in /dev/shm.
    let plan = query(&cluster, parallel)?;
    ensure!(plan.contains("Workers Launched: 2"), "{plan}");
    let address = query(&cluster, "show data_directory")?;
    ensure!(address == "/var/lib/postgresql/data/own", "{address}");

    kill(postmaster(&cluster)?)?;
    eventually("the container has been started again", || {
        let path = "jsonpath={.status.containerStatuses[0].restartCount}";
        Ok(cluster.kubectl(&["get", "pod", "database", "--output", path])? == "1")
    })?;
    eventually("it serves again", || {
        Ok(query(&cluster, "select count(*), sum(number) from kept")? == "20000|200010000")
    })?;
    let log = cluster.logs("pod/database")?;
    ensure!(log.contains("automatic recovery in progress"), "{log}");

    let log = Following::start(&cluster, "database")?;
    let session = start(&cluster, DATABASE, &psql("select pg_sleep(600)"))?;
    let busy = "select count(*) from pg_stat_activity \
                where query = 'select pg_sleep(600)' and state = 'active'";
    eventually("a client is busy", || Ok(query(&cluster, busy)? == "1"))?;
    cluster.kubectl(&["delete", "pod", "database"])?;
    eventually("the client has been told", || {
        let log = cluster.logs(&format!("pod/{session}"))?;
        Ok(log.contains("terminating connection due to administrator command"))
    })?;
    let log = log.end()?;
    ensure!(log.contains("received fast shutdown request"), "{log}");
    ensure!(log.contains("database system is shut down"), "{log}");
    Ok(())
}

/// The process on the host that is the database of this cluster.
fn postmaster(cluster: &Cluster) -> anyhow::Result<i32> {
    // Its children call themselves otherwise.
    let found = processes(&["postgres -c", &format!("cluster_name={}", cluster.name)])?;
    let [one] = found.as_slice() else { anyhow::bail!("{found:?} are no one process") };
    Ok(one.pid)
}

/// `kubectl logs --follow` of a pod, to its end.
struct Following(Child);

impl Following {
    fn start(cluster: &Cluster, pod: &str) -> anyhow::Result<Self> {
        let mut command = cluster.kubectl_command(&["logs", "--follow", pod])?;
        Ok(Self(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?))
    }

    /// What it has printed when the pod is gone.
    fn end(mut self) -> anyhow::Result<String> {
        let mut log = String::new();
        self.0.stdout.take().context("standard output")?.read_to_string(&mut log)?;
        self.0.wait()?;
        Ok(log)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Asked through its Service by a client of the same image, and by the readiness probe.
pub(crate) fn python_service_runs() -> anyhow::Result<()> {
    let cluster = Cluster::new("python")?;
    pack(&cluster, "python", "python", &["--entrypoint", "/usr/bin/python3"])?;
    cluster.write("app.yaml", PYTHON)?;
    cluster.coracle(&["up", "--detach", &cluster.work().display().to_string()])?;
    let ask = "import urllib.request as r; \
               print(r.urlopen('http://greeter/asked?by=client', timeout=10).read().decode())";
    let answer = run(&cluster, "test/python:1", &["/usr/bin/python3", "-c", ask])?;
    let answer: Value = serde_json::from_str(&answer).context("an answer as JSON")?;
    let number = |name: &str| answer.get(name).and_then(Value::as_i64);
    let greeting = answer.get("greeting").and_then(Value::as_str);
    ensure!(greeting == Some("hello") && number("user") == Some(4000), "{answer}");
    ensure!(number("asked") >= Some(2), "the probe has not asked: {answer}");
    let log = cluster.logs("pod/greeter")?;
    ensure!(log.contains("serving with OpenSSL"), "{log}");
    ensure!(log.contains("\"GET /ready HTTP/1.1\" 200"), "{log}");
    ensure!(log.contains("\"GET /asked?by=client HTTP/1.1\" 200"), "{log}");
    let log = Following::start(&cluster, "greeter")?;
    cluster.kubectl(&["delete", "pod", "greeter"])?;
    let log = log.end()?;
    ensure!(log.ends_with("stopped\n"), "{log}");
    Ok(())
}
