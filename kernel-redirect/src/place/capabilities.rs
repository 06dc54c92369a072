//! What the process may do, by its capabilities, and what each duty needs. Reads no file.

/// The effective capabilities in the text of /proc/self/status.
pub(super) fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Name of a capability, and the bits any of which gives it (capabilities(7)).
pub(super) type Capability = (&'static str, &'static [u32]);

pub(super) const NET_ADMIN: u32 = 12;
pub(super) const SYS_PTRACE: u32 = 19;
pub(super) const SYS_ADMIN: u32 = 21;
pub(super) const BPF: u32 = 39;

/// What attaching needs. CAP_SYS_ADMIN is as good as CAP_BPF.
pub(super) const TO_ATTACH: [Capability; 2] = [
    ("CAP_BPF", &[BPF, SYS_ADMIN]),
    ("CAP_NET_ADMIN", &[NET_ADMIN]),
];

/// What an agent needs: setns(2) into a pod's network namespace is CAP_SYS_ADMIN's.
pub(super) const OF_AN_AGENT: [Capability; 3] =
    [TO_ATTACH[0], TO_ATTACH[1], ("CAP_SYS_ADMIN", &[SYS_ADMIN])];

/// Whose network namespace is whose is told of other users' processes to CAP_SYS_PTRACE alone
/// (proc_pid_ns(5)).
pub(super) const TO_FIND_PODS: [Capability; 4] = [
    OF_AN_AGENT[0],
    OF_AN_AGENT[1],
    OF_AN_AGENT[2],
    ("CAP_SYS_PTRACE", &[SYS_PTRACE]),
];

/// Names of the capabilities that are missing in `held`.
pub(super) fn missing(held: u64, needed: &[Capability]) -> Vec<&'static str> {
    let has = |bits: &[u32]| bits.iter().any(|bit| held & (1 << bit) != 0);
    let lacks = needed.iter().filter(|(_, bits)| !has(bits));
    lacks.map(|(name, _)| *name).collect()
}
