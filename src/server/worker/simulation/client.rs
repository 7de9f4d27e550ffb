//! What clients of both protocols have in common.

use crate::message::{FieldName, ResponseHead};

use super::client_h1;
use super::client_h2;
use super::dice::Dice;
use super::laws::{Ledger, Receipt};
use super::line::Address;

/// A scripted client: one connection.
pub enum Client {
    H1(Box<client_h1::Client>),
    H2(Box<client_h2::Client>),
}

impl Client {
    pub fn new(front: &Address, now_ms: u64, ledger: &mut Ledger, dice: &mut Dice) -> Client {
        match dice.one_in(2) {
            true => Client::H1(Box::new(client_h1::Client::new(front, ledger, dice))),
            false => Client::H2(Box::new(client_h2::Client::new(front, now_ms, ledger, dice))),
        }
    }

    /// Whether nothing more is to come.
    pub fn is_done(&self) -> bool {
        match self {
            Client::H1(client) => client.is_done(),
            Client::H2(client) => client.is_done(),
        }
    }

    /// Sends some, reads some.
    pub fn step(&mut self, now_ms: u64, ledger: &mut Ledger, dice: &mut Dice) -> Result<(), String> {
        match self {
            Client::H1(client) => client.step(ledger, dice),
            Client::H2(client) => client.step(now_ms, ledger, dice),
        }
    }

    /// What must hold in the end.
    pub fn judge(&self, ledger: &Ledger) -> Result<(), String> {
        match self {
            Client::H1(client) => client.judge(ledger),
            Client::H2(client) => client.judge(ledger),
        }
    }
}

impl Receipt {
    /// What a final head says.
    pub fn read_head(&mut self, head: &ResponseHead) {
        self.status = head.status.0;
        self.is_zipped = head.fields.first(FieldName::ContentEncoding) == Some(b"gzip");
        self.id = head.fields.named(b"X-Id").next().map(<[u8]>::to_vec);
    }
}
