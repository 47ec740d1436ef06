//! The server's own commands: the connection, transactions, durability, settings and insight.
//!
//! ```text
//!   name -> table::Entry -> Target::Data(engine row)      run by the engine's executor, many at a time
//!                        \> Target::Server(row)           run here, one at a time: fn(&mut Call)
//! ```
//!
//! To add a command, add a row to `ROWS` of the file of its subject and write its function beside it. Not here: commands
//! on keys and databases (crate `bowline`), queueing and order of execution (`session`).

mod admin;
pub(crate) mod backup;
mod checkpoints;
mod client;
mod config;
mod connection;
mod describe;
mod durability;
pub mod info;
mod info_archive;
mod info_checkpoints;
mod info_load;
mod info_log;
mod info_tier;
mod observe;
pub mod row;
pub mod table;
mod transactions;

pub(crate) use connection::same_secret;
use row::ServerCommand;

/// All rows of server commands.
pub fn all_rows() -> impl Iterator<Item = &'static ServerCommand> {
    let tables = [
        connection::ROWS,
        client::ROWS,
        transactions::ROWS,
        durability::ROWS,
        config::ROWS,
        observe::ROWS,
        describe::ROWS,
        info::ROWS,
        admin::ROWS,
        checkpoints::ROWS,
        backup::ROWS,
    ];
    tables.into_iter().flatten()
}
