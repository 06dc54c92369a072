//! Child processes that end with this one, and what `/proc` says of them. Linux only.

use std::ffi::OsStr;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;

/// Clock ticks of `/proc/PID/stat` in a second: fixed at 100 in Linux's user interface.
const TICKS_PER_SECOND: u64 = 100;

/// A child that is killed, by its id, when this is dropped, and by the kernel when our process
/// ends in any other way.
pub struct Running {
    name: String,
    child: Child,
}

impl Running {
    /// Starts `program` on the processors named in `cpus` (all when `None`). Standard input is
    /// empty; the other two go where `configure` says, else to nowhere and to our standard error.
    pub fn start(
        program: &Path,
        cpus: Option<&str>,
        configure: impl FnOnce(&mut Command),
    ) -> anyhow::Result<Self> {
        // Both of util-linux: they become the program, so its id is the child's.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(cpus) = cpus {
            command.args(["taskset", "--cpu-list", cpus]);
        }
        command
            .arg(program)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        configure(&mut command);
        let name = program
            .file_name()
            .unwrap_or(OsStr::new("child"))
            .to_string_lossy()
            .into_owned();
        let child = command
            .spawn()
            .with_context(|| format!("can not start {name} (is util-linux installed?)"))?;
        Ok(Self { name, child })
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, to read from or wait for.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits until a GET of `url_path` is answered 200.
    ///
    /// # Errors
    /// When the process ends first or `within` has passed.
    pub async fn ready(
        &mut self,
        address: SocketAddr,
        url_path: &str,
        within: Duration,
    ) -> anyhow::Result<Duration> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended before it was ready: {status}", self.name);
            }
            if let Ok((StatusCode::OK, _)) = get(address, url_path).await {
                return Ok(start.elapsed());
            }
            if start.elapsed() > within {
                bail!("{} is not ready after {within:?}", self.name);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A GET over plain HTTP/1.1: status and body.
pub async fn get(address: SocketAddr, url_path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let tcp = tokio::net::TcpStream::connect(address).await?;
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await?;
    let request = Request::builder()
        .method(Method::GET)
        .uri(url_path)
        .header(HOST, "localhost")
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = send.send_request(request).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    };
    tokio::select! {
        answer = exchange => answer,
        end = connection => {
            end?;
            bail!("closed without an answer")
        }
    }
}

/// A port of an address that nothing listens on now.
pub fn free_port(ip: IpAddr) -> anyhow::Result<u16> {
    let listener = TcpListener::bind((ip, 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

/// Processor time a process has used so far, all threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTime {
    /// In user mode, in steps of 10 ms.
    pub user: Duration,
    /// In the kernel, in steps of 10 ms.
    pub system: Duration,
    /// Both, in nanoseconds, as the scheduler counts it for the threads now alive.
    pub total: Duration,
}

/// Memory of a process in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Resident now.
    pub resident_kib: u64,
    /// Most ever resident.
    pub peak_kib: u64,
}

/// Processor time of the whole machine but idling and waiting, in steps of 10 ms: also what the
/// kernel does for nobody in particular, such as receiving packets.
pub fn system_cpu_time() -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let ticks = parse_busy(&stat).context("odd /proc/stat")?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// User, nice, system, irq and softirq of the first line of `/proc/stat`.
fn parse_busy(stat: &str) -> Option<u64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields: Result<Vec<u64>, _> = line.split_ascii_whitespace().map(str::parse).collect();
    match *fields.ok()?.as_slice() {
        [user, nice, system, _idle, _waiting, irq, softirq, ..] => {
            Some(user + nice + system + irq + softirq)
        }
        _ => None,
    }
}

/// The kernel's threads that handle packets which no process's time is left for.
pub fn packet_threads() -> anyhow::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Processes that end meanwhile are none of these.
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.starts_with("ksoftirqd/") {
            found.push(id);
        }
    }
    Ok(found)
}

/// Reads the processor time of a process.
pub fn cpu_time(id: u32) -> anyhow::Result<CpuTime> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))
        .context("the measured process is gone")?;
    let (user_ticks, system_ticks) = parse_stat(&stat).context("odd /proc/PID/stat")?;
    let ticks = |n: u64| Duration::from_millis(n * 1000 / TICKS_PER_SECOND);
    let (user, system) = (ticks(user_ticks), ticks(system_ticks));
    // The same time at a finer grain; a kernel without CONFIG_SCHED_INFO has only the ticks.
    let total = thread_run_time(id).unwrap_or(user + system);
    Ok(CpuTime {
        user,
        system,
        total,
    })
}

/// Fields 14 and 15 of `/proc/PID/stat`; the second field may hold spaces and parentheses.
fn parse_stat(stat: &str) -> Option<(u64, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn thread_run_time(id: u32) -> io::Result<Duration> {
    let mut nanoseconds = 0;
    for thread in std::fs::read_dir(format!("/proc/{id}/task"))? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        let first = text.split_ascii_whitespace().next().unwrap_or_default();
        nanoseconds += first.parse::<u64>().map_err(io::Error::other)?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Reads the memory of a process.
pub fn memory(id: u32) -> anyhow::Result<Memory> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))
        .context("the measured process is gone")?;
    let kib = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|l| l.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    Ok(Memory {
        resident_kib: kib("VmRSS:").context("no VmRSS")?,
        peak_kib: kib("VmHWM:").context("no VmHWM")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_fields_survive_an_odd_process_name() {
        let stat = "42 (a) b) S 1 2 3 4 5 6 7 8 9 10 117 23 0 0 20 0 1";
        assert_eq!(parse_stat(stat), Some((117, 23)));
    }

    #[test]
    fn idling_and_waiting_are_no_work() {
        let stat = "cpu  1 2 4 1000 2000 8 16 3000 0 0\ncpu0 1 2 4 1000 2000 8 16 0 0 0\n";
        assert_eq!(parse_busy(stat), Some(31));
    }

    #[test]
    fn our_own_processor_time_grows() {
        let id = std::process::id();
        let before = cpu_time(id).unwrap();
        let mut x = 0_u64;
        while cpu_time(id).unwrap().total < before.total + Duration::from_millis(5) {
            x = std::hint::black_box(x.wrapping_add(1));
        }
        assert!(memory(id).unwrap().resident_kib > 0);
    }

    #[test]
    fn a_child_does_not_outlive_its_guard() {
        let child = Running::start(Path::new("sleep"), None, |c| {
            c.arg("60");
        })
        .unwrap();
        let proc_entry = format!("/proc/{}", child.id());
        assert!(Path::new(&proc_entry).exists());
        drop(child);
        assert!(!Path::new(&proc_entry).exists());
    }
}
