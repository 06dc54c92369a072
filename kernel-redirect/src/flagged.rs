//! Flagged services, and what is told of them. Plain values.

use std::net::IpAddr;

/// An address and port whose TCP connections are to be steered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlaggedService {
    /// The service's virtual address. An IPv4-mapped one means the IPv4 address.
    pub address: IpAddr,
    /// The service's port.
    pub port: u16,
    /// Whether its connections go direct while the pod's listener is gone, instead of being refused.
    pub fail_open: bool,
    /// What stands for it in the address its connections arrive at; its own, up to
    /// [`SLOT_MAX`](crate::SLOT_MAX). Connections may arrive for an old slot for a moment after a change.
    pub slot: u32,
}

/// What became of the services given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServicesReport {
    /// New in the kernel.
    pub added: usize,
    /// In the kernel before with another slot or failure mode.
    pub changed: usize,
    /// No longer in the kernel.
    pub removed: usize,
    /// In the kernel now.
    pub flagged: usize,
    /// Not in the kernel: their connections go direct, past every L7 policy.
    pub left_out: Vec<LeftOut>,
}

/// A service that is not steered though it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Which.
    pub service: FlaggedService,
    /// Why.
    pub reason: LeftOutReason,
}

/// Why a service is not steered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeftOutReason {
    /// The kernel's map has no room.
    #[error("the kernel's map of flagged services is full")]
    MapFull,
    /// Nobody can connect to port 0 or to the unspecified address.
    #[error("nobody can connect to this address and port")]
    NoDestination,
    /// The slot is too high.
    #[error("its slot is above the highest")]
    NoSuchSlot,
    /// An earlier one has the same slot.
    #[error("another service has the same slot")]
    SlotTaken,
    /// An earlier one has the same address and port.
    #[error("another service has the same address and port")]
    AddressTaken,
}
