//! Several commands on their way at once.

use bowline_resp::Value;

use crate::client::Client;
use crate::error::Result;

/// Commands that are sent without waiting for each other's answers. They are not a transaction: others may come between.
///
/// ```no_run
/// # use bowline_client::{Client, Options};
/// # let mut client = Client::new(Options::default());
/// let mut pipeline = client.pipeline();
/// pipeline.command(&["SET", "a", "1"]).command(&["INCR", "a"]);
/// for answer in pipeline.run()? {
///     println!("{:?}", answer?);
/// }
/// # Ok::<(), bowline_client::Error>(())
/// ```
#[derive(Debug)]
pub struct Pipeline<'a> {
    client: &'a mut Client,
    commands: Vec<Vec<Vec<u8>>>,
}

impl<'a> Pipeline<'a> {
    pub(crate) fn new(client: &'a mut Client) -> Self {
        Pipeline { client, commands: Vec::new() }
    }

    /// Adds a command at the end.
    pub fn command<A: AsRef<[u8]>>(&mut self, args: &[A]) -> &mut Self {
        self.commands.push(args.iter().map(|argument| argument.as_ref().to_vec()).collect());
        self
    }

    /// How many commands were added since the last run.
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    /// True when no command was added since the last run.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// Sends all commands in order, and returns the result of each at its place. The pipeline is empty afterwards.
    ///
    /// When the connection breaks in between, each command has its own truth: those answered have their answer, a write
    /// that was sent is `Unknown`, and what was not sent is `Connection`. A pipeline of reads alone is tried again, as
    /// one is of which nothing was sent.
    ///
    /// # Errors
    /// The outer error means that nothing was sent: no connection, or a command that this client cannot send.
    pub fn run(&mut self) -> Result<Vec<Result<Value>>> {
        let commands = std::mem::take(&mut self.commands);
        self.client.run_all(&commands)
    }
}
