//! How an empty node finds its cluster. The first seed founds it, once all seeds have said that
//! they are as empty and know the same seeds; everybody else takes over what was founded, or asks
//! to be let in. So a cluster is founded exactly once: whoever finds one joins it, and two founders
//! would have to be first in the same list.

use super::face::Face;
use super::join;
use crate::limits;
use crate::log::{self, Level};
use agni_core::engine::Seed;
use agni_core::proto::node::{HelloResponse, SystemState};
use agni_core::system::{self, Founder};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// What a seed answered, by its address.
type Greeting = (String, Result<HelloResponse, String>);

/// What to do next.
#[derive(Debug, PartialEq)]
enum Decision {
    /// Begin as one of those who found the cluster.
    TakeOver(Seed),
    /// Ask to be let in, at this address.
    Join(String),
    /// Found a cluster of these.
    Found(Vec<Founder>),
    /// Ask again; why.
    Wait(String),
    /// This can't end well; why.
    GiveUp(String),
}

/// Asks until this node belongs to a cluster.
///
/// # Errors
/// When the configuration can't lead to one.
pub async fn gather(face: Arc<Face>) -> Result<Seed, String> {
    let mut attempt = 0;
    loop {
        let greetings = greet_all(&face).await;
        let waits_for = match decide(&face, &greetings) {
            Decision::TakeOver(seed) => return Ok(seed),
            Decision::Found(founders) => return found(&face, &founders),
            Decision::GiveUp(message) => return Err(message),
            Decision::Wait(message) => message,
            Decision::Join(address) => match join::ask(&face, &address).await {
                Ok(joined) => {
                    fits(&face, &joined.state)?;
                    return Ok(joined);
                }
                Err(error) => format!("{address} doesn't let it in: {error}"),
            },
        };
        if attempt % limits::GATHER_ATTEMPTS_A_LOG_LINE == 0 {
            let fields = [("because", waits_for.into())];
            log::write(Level::Info, "waiting for a cluster", &fields);
        }
        attempt += 1;
        tokio::time::sleep(Duration::from_millis(limits::GATHER_PAUSE_MS)).await;
    }
}

async fn greet_all(face: &Arc<Face>) -> Vec<Greeting> {
    let mut asked = JoinSet::new();
    for seed in &face.config.seeds {
        if *seed != face.config.address {
            let (face, seed) = (face.clone(), seed.clone());
            asked.spawn(async move {
                let answer = face.greet(&seed).await;
                (seed, answer)
            });
        }
    }
    asked.join_all().await
}

fn fits(face: &Face, state: &SystemState) -> Result<(), String> {
    let (has, configured) = (state.partition_count, face.partition_count);
    match has == configured {
        true => Ok(()),
        false => {
            Err(format!("the cluster has {has} partitions, not {configured}: configure {has}"))
        }
    }
}

fn decide(face: &Face, greetings: &[Greeting]) -> Decision {
    let answers = || greetings.iter().filter_map(|(at, answer)| Some((at, answer.as_ref().ok()?)));
    for state in answers().filter_map(|(_, answer)| answer.founding.as_ref()) {
        let Some(me) = state.members.iter().find(|m| m.nonce[..] == face.nonce[..]) else {
            continue;
        };
        if let Err(message) = fits(face, state) {
            return Decision::GiveUp(message);
        }
        let (node_id, state) = (me.node_id, state.clone());
        return Decision::TakeOver(Seed { node_id, is_founding: true, state });
    }
    if let Some((address, _)) = answers().find(|(_, answer)| !answer.cluster_id.is_empty()) {
        return Decision::Join(address.clone());
    }
    if face.joins_only {
        return Decision::Wait("it keeps damaged data aside, so others must found".to_owned());
    }
    let seeds = &face.config.seeds;
    let founder = seeds.first().map_or("", String::as_str);
    if founder != face.config.address {
        return Decision::Wait(match seeds.contains(&face.config.address) {
            true => format!("{founder}, the first seed, founds the cluster"),
            false => "none of the seeds belongs to a cluster yet".to_owned(),
        });
    }
    founders(face, greetings)
}

/// Whether all seeds are ready to begin with this one.
fn founders(face: &Face, greetings: &[Greeting]) -> Decision {
    let mut founders = vec![face.founder()];
    // In the order of the list, so that everybody numbers them alike.
    for seed in &face.config.seeds[1..] {
        let answer = match greetings.iter().find(|(at, _)| at == seed) {
            Some((_, Ok(answer))) => answer,
            Some((_, Err(error))) => {
                return Decision::Wait(format!("{seed} can't be reached: {error}"));
            }
            None => return Decision::GiveUp(format!("seeds names {seed} twice")),
        };
        if answer.joins_only {
            let message = format!("{seed} keeps damaged data aside: restore what it had first");
            return Decision::Wait(message);
        }
        if answer.seeds != face.config.seeds {
            let other = answer.seeds.join(", ");
            let message = format!("{seed} has the seeds [{other}]; all need the same, in order");
            return Decision::Wait(message);
        }
        if answer.partition_count != face.partition_count {
            let (other, own) = (answer.partition_count, face.partition_count);
            let message =
                format!("{seed} is configured for {other} partitions, this node for {own}");
            return Decision::Wait(message);
        }
        founders.push(Founder {
            name: answer.name.clone(),
            client_address: answer.client_address.clone(),
            peer_address: seed.clone(),
            region: answer.region.clone(),
            zone: answer.zone.clone(),
            nonce: answer.nonce.to_vec(),
        });
    }
    let names: BTreeSet<&str> = founders.iter().map(|founder| &*founder.name).collect();
    if names.len() < founders.len() {
        return Decision::Wait("two of the seeds have the same name; give each its own".to_owned());
    }
    Decision::Found(founders)
}

fn found(face: &Face, founders: &[Founder]) -> Result<Seed, String> {
    let mut cluster_id = [0; 16];
    let random = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut cluster_id));
    random.map_err(|error| format!("/dev/urandom: {error}"))?;
    let replication = face.config.replication;
    let state = system::found(cluster_id, face.partition_count, replication, founders);
    Ok(Seed { node_id: 1, is_founding: true, state })
}

#[cfg(test)]
mod tests {
    use super::super::config::ClusterConfig;
    use super::*;
    use agni_core::proto::node::HelloRequest;

    fn face(name: &str, seeds: &[&str]) -> Face {
        let config = ClusterConfig {
            name: name.to_owned(),
            address: name.to_owned(),
            seeds: seeds.iter().map(|seed| (*seed).to_owned()).collect(),
            ..ClusterConfig::default()
        };
        Face::new(config, "eu".to_owned(), 4, name.as_bytes().to_vec(), None)
    }

    fn greeting(face: &Face) -> Greeting {
        (face.config.address.clone(), Ok(face.answer(&HelloRequest::default())))
    }

    #[test]
    fn the_first_seed_founds_when_all_are_there_and_agree() {
        let seeds = ["a", "b", "c"];
        let (a, b, c) = (face("a", &seeds), face("b", &seeds), face("c", &seeds));
        let lost = ("c".to_owned(), Err("refused".to_owned()));
        let early = decide(&a, &[greeting(&b), lost]);
        assert!(matches!(early, Decision::Wait(ref why) if why.contains("c can't be reached")));
        let Decision::Found(founders) = decide(&a, &[greeting(&c), greeting(&b)]) else {
            panic!("all are there");
        };
        let names: Vec<&str> = founders.iter().map(|founder| &*founder.name).collect();
        assert_eq!(names, seeds, "in the order of the list");
        let second = decide(&b, &[greeting(&a), greeting(&c)]);
        assert!(matches!(second, Decision::Wait(ref why) if why.contains("the first seed")));
        let stranger = face("c", &["c", "b", "a"]);
        let other = decide(&a, &[greeting(&b), greeting(&stranger)]);
        assert!(matches!(other, Decision::Wait(ref why) if why.contains("same, in order")));
    }

    #[test]
    fn nobody_founds_with_a_node_that_keeps_damaged_data() {
        let seeds = ["a", "b"];
        let (a, b) = (face("a", &seeds), face("b", &seeds));
        let damaged = |name| {
            let mut face = face(name, &seeds);
            face.joins_only = true;
            face
        };
        let alone = decide(&damaged("a"), &[greeting(&b)]);
        assert!(matches!(alone, Decision::Wait(ref why) if why.contains("damaged")));
        let other = decide(&a, &[greeting(&damaged("b"))]);
        assert!(matches!(other, Decision::Wait(ref why) if why.contains("damaged")));
    }

    #[test]
    fn whoever_finds_a_cluster_joins_it_and_founders_take_it_over() {
        let seeds = ["a", "b"];
        let (a, b) = (face("a", &seeds), face("b", &seeds));
        let founded = found(&a, &[a.founder(), b.founder()]).unwrap();
        let in_cluster = |founding| HelloResponse {
            cluster_id: bytes::Bytes::from_static(&[7; 16]),
            founding,
            ..HelloResponse::default()
        };
        let told = vec![("a".to_owned(), Ok(in_cluster(Some(founded.state.clone()))))];
        let Decision::TakeOver(seed) = decide(&b, &told) else { panic!("it is a founder") };
        assert_eq!((seed.node_id, seed.is_founding), (2, true));
        // The first seed comes back with an empty directory: it must not found another one.
        let untold = vec![("b".to_owned(), Ok(in_cluster(None)))];
        assert_eq!(decide(&a, &untold), Decision::Join("b".to_owned()));
        let mut fewer = face("b", &seeds);
        fewer.partition_count = 2;
        assert!(matches!(decide(&fewer, &told), Decision::GiveUp(_)));
    }
}
