//! Processes of the kernel laboratory: stand-ins for a waypoint, servers and applications, each in a
//! network namespace and a cgroup. What they do is in conformance/apps/pod.py.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use cairn_conformance::workspace;
use cairn_kernel_redirect::EnrolledPod;
use serde_json::{Value, json};

/// A process that said that it is ready; killed when dropped.
#[derive(Debug)]
pub struct Ready {
    child: Child,
}

impl Ready {
    /// Starts it and waits until it says so.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line.trim(), "ready", "{command:?}");
        Self { child }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it with SIGKILL, and waits until the kernel has closed its sockets.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops it (SIGSTOP): it holds its sockets and does nothing.
    pub fn stop(&self) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-STOP", &id]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What accepts steered connections in a pod.
#[derive(Debug)]
pub struct StandIn {
    /// As it is enrolled.
    pub pod: EnrolledPod,
    /// Who accepts.
    pub process: Ready,
}

/// An application that does what it is told.
#[derive(Debug)]
pub struct App {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// What came of a connect().
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// Who answered: a server's name, or `waypoint`.
    pub server: String,
    /// The address at which it answered.
    pub local: SocketAddr,
    /// From where it was reached.
    pub from: IpAddr,
    /// getpeername() of the application's socket.
    pub peer: SocketAddr,
}

impl App {
    /// Starts it.
    pub fn start(netns: &Path, cgroup: &Path) -> Self {
        let mut command = script(netns, cgroup, &["app"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        Self {
            orders: child.stdin.take(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    /// Gives an order as JSON and returns the answer.
    pub fn ask(&mut self, order: &Value) -> Value {
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{order}: {line:?}: {e}"))
    }

    /// Connects to an address, with options of pod.py.
    pub fn connect(&mut self, to: &str, options: Value) -> Result<Reached, String> {
        self.connect_timed(to, options).0
    }

    /// As [`connect`](Self::connect), and how long it took.
    pub fn connect_timed(
        &mut self,
        to: &str,
        options: Value,
    ) -> (Result<Reached, String>, Duration) {
        let to: SocketAddr = to.parse().unwrap();
        let family = if to.is_ipv4() { "inet" } else { "inet6" };
        // As text, because an IPv4-mapped address of Rust and of getaddrinfo are written alike.
        let mut order = json!({
            "do": "connect", "to": to.ip().to_string(), "port": to.port(), "family": family,
        });
        let Value::Object(options) = options else {
            panic!("options are an object")
        };
        order.as_object_mut().unwrap().extend(options);
        let answer = self.ask(&order);
        let took = Duration::from_micros(answer["us"].as_u64().unwrap());
        if let Some(error) = answer["error"].as_str() {
            return (Err(error.to_owned()), took);
        }
        let word = |at: usize| answer["greeting"][at].as_str().unwrap_or_default();
        let address = |text: &str| -> IpAddr { text.parse().unwrap() };
        let reached = Reached {
            server: word(0).to_owned(),
            local: SocketAddr::new(address(word(1)).to_canonical(), word(2).parse().unwrap()),
            from: address(word(3)).to_canonical(),
            peer: SocketAddr::new(
                address(answer["peer"][0].as_str().unwrap()),
                u16::try_from(answer["peer"][1].as_u64().unwrap()).unwrap(),
            ),
        };
        (Ok(reached), took)
    }

    /// Says something over a connection made with the option `name`, and who answered.
    pub fn say(&mut self, name: &str) -> Result<String, String> {
        heard(&self.ask(&json!({"do": "say", "name": name})))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Goes to another network namespace and cgroup: from outside, as if its process id had been given
    /// to a process there.
    pub fn become_one_of(&mut self, netns: &Path, cgroup: &Path) {
        let answer = self.ask(&json!({"do": "become", "netns": netns, "cgroup": cgroup}));
        assert_eq!(answer, json!({}));
    }

    /// Sends a datagram and waits for it to come back.
    pub fn datagram(&mut self, to: &str) -> Result<String, String> {
        let to: SocketAddr = to.parse().unwrap();
        heard(&self.ask(&json!({"do": "udp", "to": to.ip().to_string(), "port": to.port()})))
    }
}

fn heard(answer: &Value) -> Result<String, String> {
    match answer["error"].as_str() {
        Some(error) => Err(error.to_owned()),
        None => Ok(answer["heard"][0].as_str().unwrap().to_owned()),
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// pod.py inside a network namespace and cgroup.
pub fn script(netns: &Path, cgroup: &Path, arguments: &[&str]) -> Command {
    let mut command = command(netns, cgroup, &workspace::python());
    command
        .arg(workspace::root().join("conformance/apps/pod.py"))
        .args(arguments);
    command
}

/// A command that runs a program inside a network namespace and cgroup. The shell joins the cgroup and becomes nsenter, which becomes the program: the child's process id
/// is the program's. Not `ip netns exec`, which hides cgroups and pins by mounting /sys anew.
pub fn command(netns: &Path, cgroup: &Path, program: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg("echo $$ >\"$0/cgroup.procs\" && n=\"$1\" && shift && exec nsenter --net=\"$n\" -- \"$@\"")
        .arg(cgroup)
        .arg(netns)
        .arg(program);
    command
}
