//! `keva.id`: whose working directory this is. Written once, at the first start, and compared at every later one.

use serde::Deserialize;

use crate::raft::storage::StorageError;
use crate::raft::types::NodeId;
use crate::storage::directory::{Directory, io_error, publish};
use crate::storage::region::Region;
use crate::storage::stamp::{FORMAT_VERSION, Owner};
use crate::util::hash::{fnv1a_64, fnv1a_128};
use crate::util::rng::Rng;

/// The file's name.
pub(crate) const IDENTITY_NAME: &str = "keva.id";
/// What it is called until it is whole.
pub(crate) const IDENTITY_TEMPORARY: &str = "keva.id.tmp";

/// Who this node is, as the configuration says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Membership {
    /// The node's number.
    pub node: NodeId,
    /// The node's identity, from which the number is made.
    pub identity: String,
    /// The identities of all nodes of the cluster, this one included, in any order.
    pub members: Vec<String>,
    /// The cluster's name, if it has one.
    pub cluster_name: Option<String>,
}

/// What the file says.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdFile {
    format_version: u16,
    cluster_id: String,
    cluster_name: Option<String>,
    identity: String,
    node_id: String,
    members: Vec<String>,
    disk_id: String,
}

/// The one field that is read before the version is known to be ours.
#[derive(Deserialize)]
struct IdVersion {
    format_version: u16,
}

/// The cluster's number: a hash of its name, or of its members' identities when it has none.
#[must_use]
pub fn cluster_id(name: Option<&str>, members: &[String]) -> u128 {
    name.map_or_else(|| fnv1a_128(sorted(members).join("\n").as_bytes()), |name| fnv1a_128(name.as_bytes()))
}

fn sorted(members: &[String]) -> Vec<String> {
    let mut members = members.to_vec();
    members.sort();
    members
}

impl Membership {
    /// What in the file cannot have been written together.
    pub(crate) fn contradiction(&self, owner: Owner) -> Option<&'static str> {
        if !self.members.contains(&self.identity) {
            Some("the node's identity is not among the members")
        } else if fnv1a_64(self.identity.as_bytes()) != owner.node.0 {
            Some("the node's number is not that of its identity")
        } else if cluster_id(self.cluster_name.as_deref(), &self.members) != owner.cluster_id {
            Some("the cluster's number is not that of its name or members")
        } else {
            None
        }
    }
}

/// Writes the file.
pub(crate) fn create_identity<D: Directory>(
    directory: &mut D,
    membership: &Membership,
    rng: &mut Rng,
) -> Result<Owner, StorageError> {
    let owner = Owner {
        cluster_id: cluster_id(membership.cluster_name.as_deref(), &membership.members),
        node: membership.node,
        disk_id: rng.next_u64(),
    };
    let text = render(membership, owner);
    let path = directory.path(IDENTITY_TEMPORARY);
    let mut region =
        directory.create(IDENTITY_TEMPORARY, text.len()).map_err(io_error("create", path.clone()))?;
    region.write_at(0, text.as_bytes()).map_err(io_error("write", path))?;
    publish(directory, &mut region, IDENTITY_TEMPORARY, IDENTITY_NAME)?;
    Ok(owner)
}

/// Reads the file and compares it with the configuration.
pub(crate) fn open_identity<D: Directory>(
    directory: &mut D,
    membership: &Membership,
) -> Result<Owner, StorageError> {
    let path = directory.path(IDENTITY_NAME);
    let (file, owner) = read(directory)?;
    file.check(membership, owner).map_err(|reason| {
        StorageError::Refused(format!("{reason} ({path} was written at this node's first start)"))
    })?;
    // Before a node's first start is complete no other file could tell.
    if cluster_id(file.cluster_name.as_deref(), &file.members) != owner.cluster_id {
        return Err(damaged(&path, "the cluster's number is not that of its name or members"));
    }
    Ok(owner)
}

/// Reads the file: whose the directory is, and what the configuration was at the first start.
pub(crate) fn read_identity<D: Directory>(directory: &mut D) -> Result<(Owner, Membership), StorageError> {
    let (IdFile { identity, members, cluster_name, .. }, owner) = read(directory)?;
    Ok((owner, Membership { node: owner.node, identity, members, cluster_name }))
}

fn read<D: Directory>(directory: &mut D) -> Result<(IdFile, Owner), StorageError> {
    let path = directory.path(IDENTITY_NAME);
    let region = directory.open(IDENTITY_NAME).map_err(io_error("open", path.clone()))?;
    let file = parse(region.read(0, region.size()), &path)?;
    let owner = file.owner().ok_or_else(|| damaged(&path, "a number in it is not written in hexadecimal"))?;
    Ok((file, owner))
}

fn damaged(path: &str, detail: &str) -> StorageError {
    StorageError::Refused(format!("{path} cannot be read: {detail}. Put the file back as it was"))
}

fn parse(bytes: &[u8], path: &str) -> Result<IdFile, StorageError> {
    let text = std::str::from_utf8(bytes).map_err(|_| damaged(path, "it is not text"))?;
    let version: IdVersion = toml::from_str(text).map_err(|error| damaged(path, error.message()))?;
    if version.format_version > FORMAT_VERSION {
        return Err(StorageError::Refused(format!(
            "{path} has format version {}; this Keva reads up to {FORMAT_VERSION}: start a newer Keva",
            version.format_version
        )));
    }
    if version.format_version == 0 {
        return Err(damaged(path, "there is no format version 0"));
    }
    toml::from_str(text).map_err(|error| damaged(path, error.message()))
}

fn render(membership: &Membership, owner: Owner) -> String {
    let members: Vec<String> = sorted(&membership.members).iter().map(|member| quoted(member)).collect();
    let name = membership
        .cluster_name
        .as_ref()
        .map_or(String::new(), |name| format!("cluster_name = {}\n", quoted(name)));
    format!(
        "# Whose working directory this is. Keva wrote this at the first start and never changes it.\n\
         # Do not edit it and do not copy it to another node.\n\
         format_version = {FORMAT_VERSION}\n\
         cluster_id = \"{:032x}\"\n\
         {name}\
         identity = {}\n\
         node_id = \"{:016x}\"\n\
         members = [{}]\n\
         disk_id = \"{:016x}\"\n",
        owner.cluster_id,
        quoted(&membership.identity),
        owner.node.0,
        members.join(", "),
        owner.disk_id,
    )
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            control if control.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

impl IdFile {
    fn owner(&self) -> Option<Owner> {
        Some(Owner {
            cluster_id: u128::from_str_radix(&self.cluster_id, 16).ok()?,
            node: NodeId(u64::from_str_radix(&self.node_id, 16).ok()?),
            disk_id: u64::from_str_radix(&self.disk_id, 16).ok()?,
        })
    }

    /// What differs from the configuration, and what to do about it.
    fn check(&self, membership: &Membership, owner: Owner) -> Result<(), String> {
        if self.identity != membership.identity || owner.node != membership.node {
            return Err(format!(
                "this working directory belongs to the node \"{}\", the configuration says \"{}\": \
                 give each node a directory of its own, or set the identity back",
                self.identity, membership.identity
            ));
        }
        if let Some(name) = &membership.cluster_name
            && cluster_id(Some(name), &[]) != owner.cluster_id
        {
            let found =
                self.cluster_name.as_ref().map_or("without a name".into(), |name| format!("\"{name}\""));
            return Err(format!(
                "this working directory belongs to the cluster {found}, the configuration says \"{name}\": \
                 a cluster cannot be renamed; set the name back, or use another working directory"
            ));
        }
        if self.members != sorted(&membership.members) {
            return Err(format!(
                "the cluster was started with the members {}, the configuration lists {}: members cannot be added, \
                 removed or renamed yet, only their addresses and ports may change; set the list back",
                self.members.join(", "),
                sorted(&membership.members).join(", ")
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership() -> Membership {
        Membership {
            node: NodeId(7),
            identity: "pi \"attic\" \\ 1\t".into(),
            members: vec!["pi-2".into(), "pi \"attic\" \\ 1\t".into(), "ünïcode".into()],
            cluster_name: Some("home".into()),
        }
    }

    #[test]
    fn what_is_rendered_is_parsed() {
        for cluster_name in [None, Some("home".to_string())] {
            let membership = Membership { cluster_name, ..membership() };
            let owner = Owner {
                cluster_id: cluster_id(membership.cluster_name.as_deref(), &membership.members),
                node: NodeId(7),
                disk_id: 3,
            };
            let text = render(&membership, owner);
            let file = parse(text.as_bytes(), "keva.id").unwrap();
            assert_eq!(file.owner(), Some(owner));
            assert_eq!(file.check(&membership, owner), Ok(()), "{text}");
            assert_eq!(file.cluster_name, membership.cluster_name);
        }
    }

    /// The name decides when there is one; otherwise the members do, in any order.
    #[test]
    fn the_cluster_id_is_a_hash_of_what_all_nodes_know() {
        let (ab, ba) = (["a".to_string(), "b".into()], ["b".to_string(), "a".into()]);
        assert_eq!(cluster_id(None, &ab), cluster_id(None, &ba));
        assert_eq!(cluster_id(Some("x"), &ab), fnv1a_128(b"x"));
        assert_ne!(cluster_id(None, &ab), cluster_id(Some("x"), &ab));
    }
}
