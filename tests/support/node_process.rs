//! One `keva` process that a test starts, stops, kills and pauses.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Bytes from the end of a log that are shown when a test fails.
const LOG_TAIL_BYTES: u64 = 6_000;

/// A node's program, running or not, and the files that it is run with. Dropping it kills the process.
#[derive(Debug)]
pub struct NodeProcess {
    identity: String,
    config_file: PathBuf,
    working_directory: PathBuf,
    log_file: PathBuf,
    launcher: Vec<String>,
    child: Option<Child>,
}

impl NodeProcess {
    /// A node that is not running yet. Its standard error goes to `log_file`, behind what is there.
    pub fn new(identity: &str, config_file: &Path, working_directory: &Path, log_file: &Path) -> NodeProcess {
        NodeProcess {
            identity: identity.to_owned(),
            config_file: config_file.to_owned(),
            working_directory: working_directory.to_owned(),
            log_file: log_file.to_owned(),
            launcher: Vec::new(),
            child: None,
        }
    }

    /// The program under test: the one in `KEVA_BIN`, or the one that was built with the tests.
    pub fn program() -> PathBuf {
        let built = || PathBuf::from(env!("CARGO_BIN_EXE_keva"));
        std::env::var_os("KEVA_BIN").map_or_else(built, PathBuf::from)
    }

    /// Starts the process. It may still refuse to run: see [`NodeProcess::wait_exit`].
    pub fn start(&mut self) {
        assert!(!self.is_running(), "{} is running already", self.identity);
        let log =
            OpenOptions::new().create(true).append(true).open(&self.log_file).expect("open the log file");
        let mut words = self.launcher.iter().map(OsString::from).chain([NodeProcess::program().into()]);
        let mut command = Command::new(words.next().expect("the program itself at least"));
        command.args(words);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("KEVA_")) {
            command.env_remove(name);
        }
        let child = command
            .arg("--config-file")
            .arg(&self.config_file)
            .arg("--node-identity")
            .arg(&self.identity)
            .arg("--working-directory")
            .arg(&self.working_directory)
            .current_dir(self.log_file.parent().expect("a file has a directory"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("another handle of the log file"))
            .stderr(log)
            .spawn()
            .expect("start the program");
        self.child = Some(child);
    }

    /// The name in the configuration.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Where the node keeps its data.
    pub fn working_directory(&self) -> &Path {
        &self.working_directory
    }

    /// Uses another working directory at the next start.
    pub fn set_working_directory(&mut self, directory: &Path) {
        self.working_directory = directory.to_owned();
    }

    /// Starts the program through this command from the next start on. The command must become the program, not
    /// start it, so that signals reach the program.
    pub fn set_launcher(&mut self, launcher: Vec<String>) {
        self.launcher = launcher;
    }

    /// Uses another configuration at the next start.
    pub fn set_config_file(&mut self, config_file: &Path) {
        self.config_file = config_file.to_owned();
    }

    /// Whether there is a process. A paused one counts.
    pub fn is_running(&mut self) -> bool {
        match &mut self.child {
            None => false,
            Some(child) => child.try_wait().expect("ask for the process").is_none(),
        }
    }

    /// The id of the process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap_or_else(|| panic!("{} was not started", self.identity)).id()
    }

    /// Kills the process as a power cut would, as far as a process can tell, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself a moment ago.
            let _ = child.kill();
            child.wait().expect("wait for the killed process");
        }
    }

    /// Sends SIGKILL and does not wait, so that several nodes can be killed at the same moment.
    pub fn kill_without_waiting(&self) {
        self.signal(Signal::KILL);
    }

    /// Stops the process in its tracks (SIGSTOP).
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a paused process run on (SIGCONT).
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Asks the process to stop (SIGTERM) and does not wait.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).expect("a process id is never 0");
        kill_process(pid, signal)
            .unwrap_or_else(|error| panic!("signal {} (process {pid:?}): {error}", self.identity));
    }

    /// Waits until the process has ended by itself.
    pub fn wait_exit(&mut self, at_most: Duration) -> ExitStatus {
        let deadline = Instant::now() + at_most;
        let child = self.child.as_mut().unwrap_or_else(|| panic!("{} was not started", self.identity));
        loop {
            if let Some(status) = child.try_wait().expect("ask for the process") {
                self.child = None;
                return status;
            }
            assert!(Instant::now() < deadline, "{} did not end within {at_most:?}", self.identity);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Panics if the process has ended, with what it said.
    pub fn assert_running(&mut self) {
        let Some(child) = &mut self.child else {
            panic!("{} is not running", self.identity);
        };
        if let Some(status) = child.try_wait().expect("ask for the process") {
            let how = match status.signal() {
                Some(signal) => format!("signal {signal}"),
                None => format!("{status}"),
            };
            panic!("{} has ended with {how}:\n{}", self.identity, self.log_tail());
        }
    }

    /// How much the node has written to its standard error and output, in bytes. For [`NodeProcess::log_since`].
    pub fn log_length(&self) -> u64 {
        std::fs::metadata(&self.log_file).map_or(0, |metadata| metadata.len())
    }

    /// What the node wrote behind this many bytes.
    pub fn log_since(&self, offset: u64) -> String {
        let mut bytes = Vec::new();
        if let Ok(mut file) = File::open(&self.log_file) {
            file.seek(SeekFrom::Start(offset)).expect("seek in the log file");
            file.read_to_end(&mut bytes).expect("read the log file");
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The end of what the node wrote.
    pub fn log_tail(&self) -> String {
        self.log_since(self.log_length().saturating_sub(LOG_TAIL_BYTES))
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        self.kill();
    }
}
