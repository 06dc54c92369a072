//! The redirect of a build that has none: the same calls, each saying so.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::{
    Counters, Detached, EnrolledPod, FlaggedService, Place, RedirectError, ServicesReport, Sizes,
    Status,
};

/// Can not exist in this build.
#[derive(Debug)]
pub struct Redirect(Infallible);

/// Can not exist in this build.
#[derive(Debug)]
pub struct Claim(Infallible);

impl Claim {
    /// Always an error in this build.
    ///
    /// # Errors
    /// [`RedirectError::NotInThisBuild`].
    pub fn take(_: &Place) -> Result<Self, RedirectError> {
        Err(RedirectError::NotInThisBuild)
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn give_up(&self) -> Result<(), RedirectError> {
        match self.0 {}
    }
}

/// Always an error in this build.
///
/// # Errors
/// [`RedirectError::NotInThisBuild`].
pub fn requirements(_: crate::Duty) -> Result<(), RedirectError> {
    Err(RedirectError::NotInThisBuild)
}

impl Redirect {
    /// Always an error in this build.
    ///
    /// # Errors
    /// [`RedirectError::NotInThisBuild`].
    pub fn attach_sized(_: &Place, _: &Path, _: Sizes) -> Result<Self, RedirectError> {
        Err(RedirectError::NotInThisBuild)
    }

    /// Never called.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        match self.0 {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn pods(&self) -> Result<Vec<u64>, RedirectError> {
        match self.0 {}
    }

    /// Nothing: there is no value of this type.
    pub fn services(&self) -> impl Iterator<Item = &FlaggedService> {
        std::iter::empty()
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn counters(&self) -> Result<Counters, RedirectError> {
        match self.0 {}
    }

    /// Always an error in this build.
    ///
    /// # Errors
    /// [`RedirectError::NotInThisBuild`].
    pub fn attach(_: &Place, _: &Path) -> Result<Self, RedirectError> {
        Err(RedirectError::NotInThisBuild)
    }

    /// Never called: there is no value of this type.
    ///
    /// # Errors
    /// None.
    pub fn set_services(&mut self, _: &[FlaggedService]) -> Result<ServicesReport, RedirectError> {
        match self.0 {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn enrol(&mut self, _: &EnrolledPod, _: BorrowedFd<'_>) -> Result<(), RedirectError> {
        match self.0 {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn suspend(&mut self, _: u64) -> Result<(), RedirectError> {
        match self.0 {}
    }

    /// Always an error in this build.
    ///
    /// # Errors
    /// [`RedirectError::NotInThisBuild`].
    pub fn suspend_all(_: &Place) -> Result<usize, RedirectError> {
        Err(RedirectError::NotInThisBuild)
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn withdraw(&mut self, _: u64) -> Result<(), RedirectError> {
        match self.0 {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn retire_other_layouts(&mut self) -> Result<usize, RedirectError> {
        match self.0 {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn status(&self) -> Result<Status, RedirectError> {
        match self.0 {}
    }

    /// Nothing: there is no value of this type.
    pub fn slots(&self) -> impl Iterator<Item = (u32, SocketAddr)> + '_ {
        std::iter::empty()
    }

    /// Always an error in this build.
    ///
    /// # Errors
    /// [`RedirectError::NotInThisBuild`].
    pub fn inspect(_: &Place) -> Result<Option<Status>, RedirectError> {
        Err(RedirectError::NotInThisBuild)
    }

    /// Always an error in this build.
    ///
    /// # Errors
    /// [`RedirectError::NotInThisBuild`].
    pub fn detach(_: &Place) -> Result<Detached, RedirectError> {
        Err(RedirectError::NotInThisBuild)
    }
}

/// There is no redirect for which a link could be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LinkError(RedirectError);

/// Always an error in this build.
///
/// # Errors
/// [`LinkError`].
pub fn pod_link(_: &str) -> Result<u32, LinkError> {
    Err(LinkError(RedirectError::NotInThisBuild))
}

/// Always an error in this build.
///
/// # Errors
/// [`RedirectError::NotInThisBuild`].
pub fn route_host_slots(_: u16) -> Result<bool, RedirectError> {
    Err(RedirectError::NotInThisBuild)
}

/// Always an error in this build.
///
/// # Errors
/// One that says so.
pub fn route_ipv6_slots(_: BorrowedFd<'_>) -> std::io::Result<()> {
    Err(std::io::Error::other(RedirectError::NotInThisBuild))
}
