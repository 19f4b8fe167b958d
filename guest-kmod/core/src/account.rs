//! Who holds how many pages: per user, per process and in all.
//!
//! Pages are charged before they are pinned or allocated and stay charged until they are really free: while the host may still use them, and while
//! the program still maps a window that the host has long released.

use crate::errno::{EDQUOT, ENOMEM};
use crate::memory::Slab;

/// Limits in pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Limits {
    /// All users together.
    pub total: u64,
    /// One user.
    pub user: u64,
    /// One process (address space).
    pub process: u64,
    /// One region.
    pub region: u64,
    /// Sessions of one user.
    pub user_sessions: u32,
    /// Regions of one session.
    pub session_regions: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owner {
    User(u32),
    /// The address of the kernel's description of the address space, which the C half keeps while anything is charged to it.
    Process(u64),
}

struct Account {
    owner: Owner,
    pages: u64,
    sessions: u32,
    /// Sessions and charges that refer to this account.
    references: u64,
}

/// A session's accounts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owners {
    user: u32,
    process: u32,
}

/// Pages that are charged. The C half keeps it with the pages and gives it back when they are free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Charge {
    user: u32,
    process: u32,
    pages: u64,
}

impl Charge {
    /// How many pages.
    pub fn pages(&self) -> u64 {
        self.pages
    }
}

/// All accounts.
pub struct Accounts {
    limits: Limits,
    accounts: Slab<Account>,
    total: u64,
}

impl Accounts {
    /// No accounts.
    pub const fn new(limits: Limits) -> Accounts {
        Accounts { limits, accounts: Slab::new(1 << 16), total: 0 }
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Pages charged in all.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Pages charged to the user and to the process.
    pub fn pages(&self, owners: Owners) -> (u64, u64) {
        let pages = |index| self.accounts.get(index).map_or(0, |account| account.pages);
        (pages(owners.user), pages(owners.process))
    }

    /// Accounts for a new session.
    ///
    /// # Errors
    /// The user has too many sessions, or there is no memory.
    pub fn open(&mut self, uid: u32, process: u64) -> Result<Owners, i32> {
        let user = self.find_or_make(Owner::User(uid))?;
        let process = match self.find_or_make(Owner::Process(process)) {
            Ok(process) => process,
            Err(error) => {
                self.drop_reference(user);
                return Err(error);
            }
        };
        let owners = Owners { user, process };
        let limit = self.limits.user_sessions;
        match self.accounts.get_mut(user) {
            Some(account) if account.sessions < limit => {
                account.sessions += 1;
                Ok(owners)
            }
            _ => {
                self.drop_reference(user);
                self.drop_reference(process);
                Err(EDQUOT)
            }
        }
    }

    /// A session ends; its charges live on.
    pub fn close(&mut self, owners: Owners) {
        if let Some(account) = self.accounts.get_mut(owners.user) {
            account.sessions = account.sessions.saturating_sub(1);
        }
        self.drop_reference(owners.user);
        self.drop_reference(owners.process);
    }

    /// Charges pages.
    ///
    /// # Errors
    /// A limit would be passed.
    pub fn charge(&mut self, owners: Owners, pages: u64) -> Result<Charge, i32> {
        let (user, process) = self.pages(owners);
        let within = |held: u64, limit: u64| held.checked_add(pages).is_some_and(|sum| sum <= limit);
        if !within(self.total, self.limits.total)
            || !within(user, self.limits.user)
            || !within(process, self.limits.process)
        {
            return Err(EDQUOT);
        }
        for index in [owners.user, owners.process] {
            if let Some(account) = self.accounts.get_mut(index) {
                account.pages += pages;
                account.references += 1;
            }
        }
        self.total += pages;
        Ok(Charge { user: owners.user, process: owners.process, pages })
    }

    /// Gives a charge back.
    pub fn uncharge(&mut self, charge: Charge) {
        self.total = self.total.saturating_sub(charge.pages);
        for index in [charge.user, charge.process] {
            if let Some(account) = self.accounts.get_mut(index) {
                account.pages = account.pages.saturating_sub(charge.pages);
            }
            self.drop_reference(index);
        }
    }

    /// Accounts in use; for tests.
    pub fn in_use(&self) -> u32 {
        self.accounts.len()
    }

    /// The index of the owner's account, with a reference. A guest has few of them at a time.
    fn find_or_make(&mut self, owner: Owner) -> Result<u32, i32> {
        for index in 0..self.accounts.bound() {
            if let Some(account) = self.accounts.get_mut(index)
                && account.owner == owner
            {
                account.references += 1;
                return Ok(index);
            }
        }
        self.accounts.insert(Account { owner, pages: 0, sessions: 0, references: 1 }).map_err(|_| ENOMEM)
    }

    fn drop_reference(&mut self, index: u32) {
        let Some(account) = self.accounts.get_mut(index) else { return };
        account.references = account.references.saturating_sub(1);
        if account.references == 0 {
            self.accounts.remove(index);
        }
    }
}
