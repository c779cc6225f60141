//! The command line: one file for each subcommand, human and JSON rendering. The only part that prints.

mod client_config;
mod completions;
mod deep;
mod demo;
mod export;
mod foreign;
mod held;
mod inspect;
mod key;
mod login;
mod output;
mod plan;
mod probe;
mod progress;
mod pull;
mod replay;
mod schedule;
mod schema;
mod serve;
mod spec;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use crate::bundle::PublicKey;
use crate::config::Config;
use crate::error::{Error, Kind, Result, Side};
use crate::registry::{Client, Credentials};
use crate::spec::MirrorSpec;
use crate::store::{Access, Store};

pub use output::describe;
pub use schema::SCHEMAS;

const EXIT_STATUSES: &str = "\
Exit status, the first that applies:
  2  wrong usage, spec, site or configuration
  5  verification failed: a digest, a signature, or the number of a bundle
  1  failed
  6  a volume or a whole bundle is missing
  4  refused by a registry: no rights, or its policy
  3  incomplete: the report names what is missing
  0  done
Ended by a signal: 128 and its number.";

/// Carries container images across an air gap: chosen platforms only, every signed index unchanged.
#[derive(Parser)]
#[command(name = "sealift", version, after_help = EXIT_STATUSES, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// What standard output gets: text for people, or one JSON document for scripts.
    #[arg(long, global = true, value_enum, default_value = "human")]
    output: Output,

    /// Say more on standard error; twice, even more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

/// What standard output gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Text for people.
    Human,
    /// One JSON document.
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Show what a spec would bring: which images and platforms, how many bytes, and why
    Plan(plan::PlanArguments),
    /// Bring what a spec wants into the store
    Pull(pull::PullArguments),
    /// Write a signed bundle of a stream to a drive, or a plain layout for other tools
    Export(export::ExportArguments),
    /// Check that a bundle is what a trusted key signed, or a store free of damage
    Verify(verify::VerifyArguments),
    /// Publish a bundle on a registry
    Replay(replay::ReplayArguments),
    /// Find out what a registry takes, before anything is carried
    Probe(probe::ProbeArguments),
    /// See which layers are had from elsewhere, and make images of which some are, or none
    #[command(subcommand)]
    Foreign(foreign::ForeignCommand),
    /// Show what an image is and what is here of it, and check its signatures
    Inspect(inspect::InspectArguments),
    /// Be a registry over a store or a bundle
    Serve(serve::ServeArguments),
    /// Write what machines in the enclave need for layers with urls
    ClientConfig(client_config::ClientConfigArguments),
    /// See which login is used for a registry, and whether it works
    #[command(subcommand)]
    Login(login::LoginCommand),
    /// Make the key that signs bundles
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Check specs, and show the schemas of what sealift reads and writes
    #[command(subcommand)]
    Spec(spec::SpecCommand),
    /// Show when streams run next
    Schedule(schedule::ScheduleArguments),
    /// Take a few images all the way, on this machine alone
    Demo(demo::DemoArguments),
    /// Write shell completions to standard output
    Completions(completions::CompletionsArguments),
}

/// Runs the command of this process's arguments, and returns its exit status.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let output = arguments.output;
    output::start_log(arguments.verbose);
    if let Command::Verify(arguments) = arguments.command {
        // Without a runtime, which would open sockets of its own: verify opens none.
        return end(verify::run(&arguments, output));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(&Error::from(error)),
    };
    let ended = runtime.block_on(run(arguments.command, output));
    // What still reads or writes for a client that has gone is not waited for.
    runtime.shutdown_background();
    end(ended)
}

/// `Ok(Some)`: it went to the end and has said what is wrong. `Err`: it could not, and nothing was said yet.
fn end(ended: Result<Option<Kind>>) -> ExitCode {
    match ended {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(kind)) => ExitCode::from(kind.exit_status()),
        Err(error) => output::fail(&error),
    }
}

async fn run(command: Command, output: Output) -> Result<Option<Kind>> {
    match command {
        Command::Plan(arguments) => plan::run(arguments, output).await,
        Command::Pull(arguments) => pull::run(arguments, output).await,
        Command::Export(arguments) => export::run(arguments, output).await,
        Command::Verify(arguments) => verify::run(&arguments, output),
        Command::Replay(arguments) => replay::run(arguments, output).await,
        Command::Probe(arguments) => probe::run(arguments, output).await,
        Command::Foreign(command) => foreign::run(command, output).await,
        Command::Inspect(arguments) => inspect::run(arguments, output).await,
        Command::Serve(arguments) => serve::run(arguments).await,
        Command::ClientConfig(arguments) => client_config::run(&arguments, output),
        Command::Login(command) => login::run(command, output).await,
        Command::Key(command) => key::run(command, output),
        Command::Spec(command) => spec::run(command, output),
        Command::Schedule(arguments) => schedule::run(&arguments, output),
        Command::Demo(arguments) => demo::run(arguments, output).await,
        Command::Completions(arguments) => completions::run(arguments, Arguments::command()),
    }
}

/// Where the store is.
#[derive(clap::Args)]
struct StoreArgument {
    /// The store's folder [default: /var/lib/sealift/store, or sealift/store below $XDG_DATA_HOME for a user]
    #[arg(long, value_name = "DIR", env = "SEALIFT_STORE")]
    store: Option<PathBuf>,
    /// Throw the store's catalog away first, and make it again from blobs and records: when it is damaged. No other sealift
    /// process may have the store open
    #[arg(long)]
    rebuild: bool,
}

impl StoreArgument {
    fn path(&self, config: &Config) -> PathBuf {
        let chosen = self.store.clone().or_else(|| config.store.clone());
        chosen.unwrap_or_else(|| default_folder("store", "XDG_DATA_HOME", ".local/share"))
    }

    /// Opens the store, making one where there is none.
    fn open(&self, config: &Config, access: Access) -> Result<Arc<Store>> {
        let open = if self.rebuild { Store::rebuild } else { Store::open };
        open(&self.path(config), access).map(Arc::new)
    }

    fn open_existing(&self, config: &Config, access: Access) -> Result<Arc<Store>> {
        let open = if self.rebuild { Store::rebuild_existing } else { Store::open_existing };
        open(&self.path(config), access).map(Arc::new)
    }
}

/// Where the configuration is.
#[derive(clap::Args)]
struct ConfigArgument {
    /// The configuration [default: /etc/sealift/config.yaml, or sealift/config.yaml below $XDG_CONFIG_HOME, where there is one]
    #[arg(long, value_name = "FILE", env = "SEALIFT_CONFIG")]
    config: Option<PathBuf>,
}

impl ConfigArgument {
    fn load(&self) -> Result<Config> {
        let home = user_folder("XDG_CONFIG_HOME", ".config").map(|folder| folder.join("sealift/config.yaml"));
        let usual = [Some(PathBuf::from("/etc/sealift/config.yaml")), home];
        let found = self.config.clone().or_else(|| usual.into_iter().flatten().find(|path| path.is_file()));
        match found {
            Some(path) => Ok(Config::load(&path)?),
            None => Ok(Config::default()),
        }
    }
}

/// Whose bundles are accepted.
#[derive(clap::Args)]
struct KeysArgument {
    /// A public key whose bundles are accepted; may be given several times
    #[arg(long = "key", value_name = "NAME.pub")]
    keys: Vec<PathBuf>,
}

impl KeysArgument {
    fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    fn load(&self, more: &[PathBuf]) -> Result<Vec<PublicKey>> {
        let keys = self.keys.iter().chain(more).map(|path| PublicKey::load(path)).collect::<Result<Vec<_>>>()?;
        if keys.is_empty() {
            return Err(Error::usage("no key was named whose bundles are to be accepted")
                .help("--key exporter.pub, from a place that you trust; never from the drive itself"));
        }
        Ok(keys)
    }
}

/// What sealift remembers on the disconnected side.
#[derive(clap::Args)]
struct StateArgument {
    /// What was accepted before [default: /var/lib/sealift/site, or sealift/site below $XDG_STATE_HOME for a user]
    #[arg(long, value_name = "DIR", env = "SEALIFT_STATE")]
    state: Option<PathBuf>,
}

impl StateArgument {
    fn path(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| default_folder("site", "XDG_STATE_HOME", ".local/state"))
    }
}

fn default_folder(name: &str, variable: &str, below_home: &str) -> PathBuf {
    let system = PathBuf::from("/var/lib/sealift").join(name);
    if rustix::process::geteuid().is_root() {
        return system;
    }
    user_folder(variable, below_home).map_or(system, |folder| folder.join("sealift").join(name))
}

fn user_folder(variable: &str, below_home: &str) -> Option<PathBuf> {
    let set = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    set.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(below_home)))
}

/// Reads all specs; every mistake in all of them is in one error.
fn load_specs(files: &[PathBuf]) -> Result<Vec<MirrorSpec>> {
    Ok(crate::spec::load_all(files)?)
}

fn client(config: &Config, side: Side) -> Result<Client> {
    Client::new(config, Credentials::from_environment()?, side)
}

/// The most transfers at the same time that may be asked for.
const JOBS_MAX: usize = 64;

fn parse_jobs(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(jobs) if (1..=JOBS_MAX).contains(&jobs) => Ok(jobs),
        _ => Err(format!("expected a number from 1 to {JOBS_MAX}")),
    }
}
