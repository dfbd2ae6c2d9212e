//! check-site with an engine: what its builder does not take is a mistake, and nothing is built.

use crate::author::Author;

#[test]
#[ignore = "needs an engine of its own: scripts/test --soak"]
fn the_engine_s_own_builder_reads_every_variant() {
    let author = Author::new();
    author.image("good", "debian-12", "true");
    let checked = author.json(&["check-site"]);
    assert_eq!(checked["mistakes"].as_array().unwrap().len(), 0, "{checked:#}");
    // The demo's three, and those of the one above.
    assert_eq!(checked["variants"].as_u64(), Some(6));
    let told = checked["unchecked"].to_string();
    assert!(!told.contains("only parsed"), "{told}");

    // BuildKit's words are no mistake, and who reads them is not this builder.
    let directory = "containerauthor/images/secretive";
    author.write(&format!("{directory}/image.toml"), "base = \"debian-12\"\nsecrets = [\"token\"]\n");
    author.write(
        &format!("{directory}/Dockerfile.j2"),
        "FROM {{ base }}\nRUN --mount=type=secret,id=token cat /run/secrets/token\n",
    );
    let checked = author.json(&["check-site"]);
    assert_eq!(checked["mistakes"].as_array().unwrap().len(), 0, "{checked:#}");
    let told = checked["unchecked"].to_string();
    // Where a docker knows `build --check`, that has read it.
    let has_check = !told.contains("docker build --check");
    assert!(has_check || told.contains("secretive") && told.contains("by BuildKit"), "{told}");

    // A parser of the language takes it, the builder does not.
    author.write("containerauthor/images/flag/image.toml", "base = \"debian-12\"\n");
    author.write(
        "containerauthor/images/flag/Dockerfile.j2",
        "FROM {{ base }}\nHEALTHCHECK --intervall=1s CMD true\n",
    );
    let (code, said, _) = author.moorage(&["check-site", "--format", "json"]);
    assert_eq!(code, 2);
    let mistakes = serde_json::from_str::<serde_json::Value>(&said).unwrap()["mistakes"].clone();
    let mistakes = mistakes.as_array().unwrap();
    assert_eq!(mistakes.len(), if has_check { 2 } else { 1 }, "{mistakes:#?}");
    let what = mistakes[0]["what"].as_str().unwrap();
    assert!(what.ends_with("flag/Dockerfile.j2: the builder does not take it"), "{what}");
    assert!(mistakes[0]["why"][0].as_str().unwrap().contains("intervall"), "{mistakes:#?}");
    assert_eq!(author.engine.docker(&["images", "--quiet"]), "", "nothing was built");
}
