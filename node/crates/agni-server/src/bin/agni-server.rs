//! The server without Python around it: for benchmarks, profilers and tests of the data path.

use agni_server::peer::ClusterConfig;
use agni_server::{Server, ServerConfig};
use std::process::ExitCode;

const USAGE: &str = "usage: agni-server [--listen HOST:PORT] [--data-dir DIR] [--partitions N] \
[--runtimes N] [--streams N] [--log-level LEVEL] [--name NAME --peer-listen HOST:PORT \
[--seeds HOST:PORT,…]]";

fn config() -> Result<ServerConfig, String> {
    let mut config = ServerConfig::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{flag} needs a value"))?;
        let number = || value.parse::<u32>().map_err(|_| format!("{flag} needs a number"));
        match &*flag {
            "--listen" => config.listen = value,
            "--data-dir" => config.engine.data_dir = value.into(),
            "--partitions" => config.engine.partitions = number()?,
            "--runtimes" => config.runtimes = number()? as usize,
            "--streams" => config.max_concurrent_streams = number()?,
            "--log-level" => config.log_level = value,
            "--name" => cluster(&mut config).name = value,
            "--peer-listen" => {
                cluster(&mut config).address.clone_from(&value);
                cluster(&mut config).listen = value;
            }
            "--seeds" => {
                cluster(&mut config).seeds = value.split(',').map(str::to_owned).collect();
            }
            _ => return Err(format!("{flag} is unknown")),
        }
    }
    Ok(config)
}

fn cluster(config: &mut ServerConfig) -> &mut ClusterConfig {
    config.cluster.get_or_insert_default()
}

fn main() -> ExitCode {
    let server = match config().map(Server::start) {
        Ok(Ok(server)) => server,
        Ok(Err(error)) => {
            eprintln!("{}: {error}", error.code);
            return ExitCode::FAILURE;
        }
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    println!("{}", server.local_address());
    // Ends with its standard input, or by a signal: what was answered is durable either way.
    let mut line = String::new();
    while std::io::stdin().read_line(&mut line).is_ok_and(|read| read > 0) {
        line.clear();
    }
    server.drain(5_000);
    server.stop();
    ExitCode::SUCCESS
}
