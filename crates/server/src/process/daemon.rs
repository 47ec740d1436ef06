//! `--daemonize`: the server goes into the background, and who started it learns whether it serves.
//!
//! ```text
//! process that was started      waits at a pipe ------------------------> ends with the daemon's code and message
//!   fork -> first child: session of its own (setsid), forks again, ends
//!             fork -> daemon: no terminal can come back to it; umask, directory /, standard streams to /dev/null,
//!                     loads, listens, then writes "0" into the pipe, or its exit code and what went wrong
//! ```
//!
//! A pipe that closes without a word means that the daemon died before it served.
//!
//! `fork` is the one unsafe call: of a process with several threads the child has one only, and locks that others held
//! stay locked for ever. So it is refused unless this process has exactly one thread.

#![allow(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::path::Path;
use std::process;

use rustix::fs::Mode;
use rustix::process::{Pid, WaitOptions, umask, waitpid};

/// Files of a daemon are not for everybody: others get no permissions, the group may not write.
const UMASK: u32 = 0o027;

/// Longest message that is taken from the daemon, in bytes.
const MESSAGE_BYTES_MAX: u64 = 16 << 10;

/// What is done when the daemon ends without a word.
const DIED: &str = "the daemon ended before it was ready: see its logfile, or start it with --daemonize no";

/// Why the server could not go into the background.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// There are threads already, of which a fork would keep one only.
    #[error("cannot go into the background: this process has {0} threads already")]
    Threads(usize),
    /// The system refused a step.
    #[error("cannot go into the background: cannot {step}: {source}")]
    Step {
        /// What was tried, as a verb.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

fn failed(step: &'static str) -> impl FnOnce(io::Error) -> DaemonError {
    move |source| DaemonError::Step { step, source }
}

/// Who started the daemon and waits to hear of it.
#[derive(Debug)]
pub struct Starter {
    pipe: PipeWriter,
}

impl Starter {
    /// Says that the server answers: who waits ends with 0.
    pub fn ready(mut self) {
        // Who waited may have been killed, which is nothing to the daemon.
        let _ = self.pipe.write_all(&[0]);
    }

    /// Says why it does not: who waits prints the message and ends with the code.
    pub fn failed(mut self, code: u8, message: &str) {
        let mut report = vec![code];
        report.extend_from_slice(message.as_bytes());
        let _ = self.pipe.write_all(&report);
    }
}

/// Goes into the background. Returns in the daemon only; the process that called ends as the daemon's start does.
///
/// # Errors
/// In the process that called, when there is no daemon. What fails in the daemon is told to who waits.
pub fn detach() -> Result<Starter, DaemonError> {
    let threads = fs::read_dir("/proc/self/task").map_err(failed("count the threads"))?.count();
    if threads != 1 {
        return Err(DaemonError::Threads(threads));
    }
    let (reader, writer) = io::pipe().map_err(failed("make a pipe"))?;
    match fork().map_err(failed("fork"))? {
        Fork::Parent(child) => {
            drop(writer);
            wait_for_daemon(reader, child)
        }
        Fork::Child => {
            drop(reader);
            let starter = Starter { pipe: writer };
            match become_daemon() {
                Ok(()) => Ok(starter),
                Err(error) => {
                    starter.failed(1, &error.to_string());
                    process::exit(1)
                }
            }
        }
    }
}

/// The steps of the child. The first child ends within; the daemon returns.
fn become_daemon() -> Result<(), DaemonError> {
    rustix::process::setsid().map_err(io::Error::from).map_err(failed("start a session"))?;
    // Who leads a session could get a terminal again by opening one; its child cannot.
    if let Fork::Parent(_) = fork().map_err(failed("fork again"))? {
        // The daemon has its own copy of the pipe. Nothing may run here that belongs to it.
        process::exit(0);
    }
    umask(Mode::from_raw_mode(UMASK));
    // So that no mount stays in use because the daemon was started in it. Settings keep absolute paths.
    rustix::process::chdir("/").map_err(io::Error::from).map_err(failed("change to /"))?;
    streams_to(Path::new("/dev/null")).map_err(failed("redirect the standard streams to /dev/null"))
}

fn streams_to(path: &Path) -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open(path)?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// Waits until the daemon serves or has failed, and ends as it says.
fn wait_for_daemon(reader: PipeReader, first_child: Pid) -> ! {
    // The first child ends at once; to wait for it leaves no zombie to who started us.
    let _ = waitpid(Some(first_child), WaitOptions::empty());
    let mut report = Vec::new();
    // What was read before an error still tells most.
    let _ = reader.take(MESSAGE_BYTES_MAX).read_to_end(&mut report);
    let (code, message) = read_report(&report);
    if let Some(message) = message {
        super::say(&message);
    }
    process::exit(i32::from(code))
}

/// Takes a report apart into exit code and message.
fn read_report(report: &[u8]) -> (u8, Option<String>) {
    match report.split_first() {
        Some((0, _)) => (0, None),
        Some((code, message)) => (*code, Some(String::from_utf8_lossy(message).into_owned())),
        None => (1, Some(DIED.to_owned())),
    }
}

enum Fork {
    Parent(Pid),
    Child,
}

fn fork() -> io::Result<Fork> {
    // SAFETY: `detach` has seen that this process has one thread, and no step after it starts one. So no lock is held by
    // a thread that the child lacks, and the child may run any code.
    let pid = unsafe { libc::fork() };
    match Pid::from_raw(pid) {
        None => Ok(Fork::Child),
        Some(_) if pid < 0 => Err(io::Error::last_os_error()),
        Some(pid) => Ok(Fork::Parent(pid)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_forked() {
        // The test harness runs each test on a thread of its own, so there are two at least.
        assert!(matches!(detach(), Err(DaemonError::Threads(count)) if count > 1));
    }

    #[test]
    fn a_report_is_a_code_and_a_message_and_silence_is_death() {
        let reported = |tell: &dyn Fn(Starter)| {
            let (mut reader, pipe) = io::pipe().expect("a pipe");
            tell(Starter { pipe });
            let mut report = Vec::new();
            reader.read_to_end(&mut report).expect("read");
            read_report(&report)
        };
        assert_eq!(reported(&Starter::ready), (0, None));
        assert_eq!(reported(&|starter| starter.failed(3, "in use")), (3, Some("in use".to_owned())));
        assert_eq!(reported(&drop), (1, Some(DIED.to_owned())));
    }
}
