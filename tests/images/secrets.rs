//! Secrets of a build: it sees them, and nothing that is left has them.

use crate::author::Author;

const SECRET: &str = "correct-horse-battery-staple";

#[test]
#[ignore = "needs an engine of its own: scripts/test --soak"]
fn a_secret_is_seen_by_the_build_and_by_nobody_after_it() {
    let author = Author::new();
    author.engine.docker(&["import", author.tar(), "example.test/ground:latest"]);
    let directory = "containerauthor/images/secretive";
    author
        .write(&format!("{directory}/image.toml"), "base = \"example.test/ground\"\nsecrets = [\"token\"]\n");
    author.write(
        &format!("{directory}/Dockerfile.j2"),
        "FROM {{ base }}\nRUN --mount=type=secret,id=token busybox sha256sum /run/secrets/token >/sum\nRUN busybox ls /run/secrets >/left 2>/dev/null || true\n",
    );
    let file = author.site.path().join("token");
    std::fs::write(&file, SECRET).unwrap();
    let handed = format!("token={}", file.display());

    let (code, _, told) = author.moorage(&["make-dev-image", "secretive"]);
    assert_eq!(code, 2);
    assert!(told.contains("\"token\"") && told.contains("--secret token=FILE"), "{told}");
    let (code, _, told) = author.moorage(&["make-dev-image", "secretive", "--secret", "token=/nowhere"]);
    assert_eq!(code, 2, "{told}");

    // Without Docker's command line nobody hands it to the builder, and that is said.
    let site = author.site.path().to_str().unwrap();
    let words = ["--site", site, "make-dev-image", "secretive", "--secret", &handed];
    let without = author.engine.command(&words).env("PATH", "/nowhere").output().unwrap();
    let told = String::from_utf8_lossy(&without.stderr).into_owned();
    assert_eq!(without.status.code(), Some(3), "{told}");
    assert!(told.contains("Docker's command line") && told.contains("apt-get install docker.io"), "{told}");
    assert!(!author.engine.docker(&["images", "--format", "{{.Repository}}"]).contains("invalid"));

    let (code, said, told) = author.moorage(&["make-dev-image", "secretive", "--secret", &handed]);
    assert_eq!(code, 0, "{told}");
    // The build's output is shown while it goes on.
    assert!(told.contains("sha256sum /run/secrets/token"), "{told}");
    let wanted = moorage::oci::Blob::of(SECRET.as_bytes()).digest.hex();
    assert!(author.inside("secretive", &["busybox", "cat", "/sum"]).starts_with(&wanted));
    assert_eq!(author.inside("secretive", &["busybox", "cat", "/left"]), "");

    let saved = author.site.path().join("saved.tar");
    author.engine.docker(&["save", "--output", saved.to_str().unwrap(), "moorage/secretive:latest"]);
    let bytes = std::fs::read(&saved).unwrap();
    assert!(!bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()), "the image has it");
    let history = author.engine.docker(&["history", "--no-trunc", "moorage/secretive:latest"]);
    assert!(!format!("{history}{said}{told}").contains(SECRET));
    // It is an image like the others, and no name of the build is left.
    assert!(
        author.ok(&["make-dev-image", "secretive", "--secret", &handed]).contains(&author.id("secretive"))
    );
    let labels = author.engine.docker(&[
        "image",
        "inspect",
        "--format",
        "{{ index .Config.Labels \"moorage.base.id\" }} {{ .Parent }}",
        "moorage/secretive:latest",
    ]);
    let base =
        author.engine.docker(&["image", "inspect", "--format", "{{.Id}}", "example.test/ground:latest"]);
    assert!(labels.starts_with(&base), "{labels}");
    let names = author.engine.docker(&["images", "--format", "{{.Repository}}"]);
    assert!(!names.contains("invalid"), "{names}");
}
