//! Who made a bundle: an OpenSSH signature (PROTOCOL.sshsig), which `ssh-keygen -Y verify` checks too.

use std::path::Path;

use anyhow::{Context as _, Result};
use ssh_key::{HashAlg, LineEnding, PrivateKey, PublicKey, SshSig};

use crate::report::{Fault, Kind};

/// What a signature is for: one that was made for something else is none.
pub const NAMESPACE: &str = "moorage-bundle";

/// A private key.
pub struct Signer(PrivateKey);

impl Signer {
    /// The key in this file, in OpenSSH's form.
    ///
    /// # Errors
    /// [`Kind::Usage`]: one with a passphrase, or none at all.
    pub fn read(path: &Path) -> Result<Signer> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let bad = |why: String| {
            Fault::new(Kind::Usage, format!("{} cannot sign a bundle", path.display()))
                .why(why)
                .next("make a key for it: ssh-keygen -t ed25519 -N '' -f bundle-key")
        };
        let key = PrivateKey::from_openssh(&text).map_err(|e| bad(e.to_string()))?;
        if key.is_encrypted() {
            return Err(bad("it has a passphrase".into()).into());
        }
        if key.algorithm() != ssh_key::Algorithm::Ed25519 {
            return Err(bad(format!("it is a key of {}, and ed25519 is taken", key.algorithm())).into());
        }
        Ok(Signer(key))
    }

    /// The key in this file, made where there is none.
    pub fn read_or_make(path: &Path) -> Result<Signer> {
        if path.exists() {
            return Signer::read(path);
        }
        let key = ssh_key::private::Ed25519Keypair::from_seed(&rand::random());
        let key = PrivateKey::new(key.into(), "moorage-bundle").context("make a key")?;
        let text = key.to_openssh(LineEnding::LF).context("write a key")?;
        crate::state::replace(path, text.as_bytes())?;
        Ok(Signer(key))
    }

    pub fn sign(&self, bytes: &[u8]) -> Result<String> {
        let signature = self.0.sign(NAMESPACE, HashAlg::Sha512, bytes).context("sign the bundle")?;
        signature.to_pem(LineEnding::LF).context("write the signature")
    }

    /// `ssh-ed25519 AAAA…`: who applies the bundle has to have it, by another way than the bundle.
    pub fn public(&self) -> Result<String> {
        self.0.public_key().to_openssh().context("write the public key")
    }
}

/// The public keys that are trusted.
#[derive(Debug, Clone)]
pub struct Trusted(Vec<PublicKey>);

impl Trusted {
    /// A file of public keys, one a line.
    pub fn read(path: &Path) -> Result<Trusted> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys: Result<Vec<_>, _> = lines.map(PublicKey::from_openssh).collect();
        match keys {
            Ok(keys) if !keys.is_empty() => Ok(Trusted(keys)),
            other => Err(Fault::new(Kind::Usage, format!("{} is no public key", path.display()))
                .why(other.err().map_or_else(|| "it is empty".to_owned(), |e| e.to_string()))
                .next("create-bundle has printed it: a line that begins with ssh-ed25519")
                .into()),
        }
    }

    /// Whether one of them has signed these bytes.
    pub fn signed(&self, bytes: &[u8], signature: &str) -> bool {
        let Ok(signature) = SshSig::from_pem(signature) else { return false };
        self.0.iter().any(|key| key.verify(NAMESPACE, bytes, &signature).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_of_these_bytes_by_this_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let signer = Signer::read_or_make(&path("key")).unwrap();
        assert_eq!(Signer::read_or_make(&path("key")).unwrap().public().unwrap(), signer.public().unwrap());
        let other = Signer::read_or_make(&path("other")).unwrap();
        std::fs::write(path("pub"), format!("# mine\n{}\n", signer.public().unwrap())).unwrap();
        let trusted = Trusted::read(&path("pub")).unwrap();
        let signature = signer.sign(b"bytes").unwrap();
        assert!(trusted.signed(b"bytes", &signature));
        assert!(!trusted.signed(b"other", &signature));
        assert!(!trusted.signed(b"bytes", &other.sign(b"bytes").unwrap()));
        assert!(!trusted.signed(b"bytes", "-----BEGIN"));
        // OpenSSH agrees.
        std::fs::write(path("signature"), &signature).unwrap();
        std::fs::write(path("allowed"), format!("me {}\n", signer.public().unwrap())).unwrap();
        let verify = format!(
            "printf bytes | ssh-keygen -Y verify -f {} -I me -n {NAMESPACE} -s {}",
            path("allowed").display(),
            path("signature").display()
        );
        assert!(std::process::Command::new("sh").args(["-c", &verify]).status().unwrap().success());
        for junk in ["", "ssh-ed25519 x\n", "nothing"] {
            std::fs::write(path("junk"), junk).unwrap();
            assert_eq!(Fault::of(&Trusted::read(&path("junk")).unwrap_err()).kind, Kind::Usage);
            assert!(Signer::read(&path("junk")).is_err());
        }
    }
}
