//! The volumes of a bundle, unpacked and joined, are an image layout, and so is the store: skopeo, regctl, oras and crane
//! read and publish both with the commands of `docs/bundle-format.md`, as they stand there.

use super::support::have;
use super::*;

/// The commands that begin with one of `words`, in their order.
fn commands(words: &[&str]) -> Vec<String> {
    let page = include_str!("../../docs/bundle-format.md");
    let (_, section) = page.split_once("## 7. Image layout").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let lines = section.lines().filter_map(|line| line.strip_prefix("    "));
    lines.filter(|line| words.iter().any(|word| line.starts_with(word))).map(str::to_owned).collect()
}

struct Reading {
    tools: Counterparts,
    carried: Carried,
    /// What is published goes here.
    target: Serving,
}

impl Reading {
    /// Runs a command of the page on a layout, with this image in place of that of the page; what it printed.
    async fn run(&self, layout: &str, command: &str) -> String {
        let child = self.carried.image.child("linux", "amd64", "").unwrap();
        let without_tls = match command.split_whitespace().take(2).collect::<Vec<_>>()[..] {
            ["skopeo", "copy"] => command.replace(" copy ", " --insecure-policy copy --dest-tls-verify=false "),
            ["oras", "copy"] => command.replace(" copy ", " copy --to-plain-http "),
            _ => command.to_owned(),
        };
        let line = without_tls
            .replace("docker.io/library/nginx:1.27", &format!("{}:1", self.carried.at_source()))
            .replace("registry.corp/nginx:1.27", &self.published())
            .replace("sha256:<index>", &self.carried.index().to_string())
            .replace("sha256:<child>", &child.digest.to_string())
            .replace("<size>", &child.size.to_string());
        let work = self.carried.machine.path(layout);
        let output = self.tools.command("bash").args(["-euc", &line]).current_dir(&work).output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{layout}: {line}\n{said}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn published(&self) -> String {
        format!("{}/by/hand:1", self.target.host())
    }

    /// Runs the commands of a tool on a layout: the first prints the index, the others publish the kept platform.
    async fn reads_and_publishes(&self, layout: &str, reading: &str, publishing: &[&str]) {
        let lines = commands(&[reading]);
        assert_eq!(lines.len(), 1, "{reading}");
        let printed = self.run(layout, &lines[0]).await;
        assert_eq!(Digest::of(printed.as_bytes()), self.carried.index(), "{layout}: {reading}");
        self.publishes(layout, publishing).await;
    }

    async fn publishes(&self, layout: &str, publishing: &[&str]) {
        let lines = commands(publishing);
        assert_eq!(lines.len(), publishing.len(), "{publishing:?}");
        for line in &lines {
            self.run(layout, line).await;
        }
        let reader = Reader::new(&self.target.url(), "by/hand");
        let child = self.carried.child("amd64");
        assert_eq!(reader.manifest("1").await.as_ref(), self.carried.image.bytes(&child), "{layout}: {publishing:?}");
        let delete = self.tools.run("crane", &["delete", &self.published()]).await;
        assert!(delete.status.success(), "the next one publishes it again: {delete:?}");
    }
}

/// Unpacks the volumes with the commands of the page into `unpacked/layout`, and has the store as `stored/layout`.
async fn layouts(carried: &Carried) {
    let bundle = carried.machine.path(&carried.bundle);
    let unpack = commands(&["mkdir layout", "for volume"]).join("\n");
    let ran =
        carried.machine.bash(&bundle, &format!("{unpack}\ncd layout && sha256sum --quiet -c ../SHA256SUMS")).await;
    assert_eq!(ran.status, Some(0), "{ran:?}");
    for (folder, layout) in [("unpacked", bundle.join("layout")), ("stored", carried.machine.path("store"))] {
        std::fs::create_dir(carried.machine.path(folder)).unwrap();
        std::os::unix::fs::symlink(layout, carried.machine.path(folder).join("layout")).unwrap();
    }
}

#[tokio::test]
async fn other_tools_read_and_publish_the_layouts_as_the_page_says() {
    let Some(tools) = Counterparts::with(&["crane", "regctl", "oras"]) else { return };
    let Some(carried) = Carried::start().await else { return };
    if !have(&["skopeo"]) {
        return;
    }
    layouts(&carried).await;
    let target = carried.machine.serve(&["target", "--writable"]).await;
    tools.regctl_without_tls(target.host()).await;
    let reading = Reading { tools, carried, target };
    for layout in ["unpacked", "stored"] {
        reading.reads_and_publishes(layout, "skopeo inspect", &["skopeo copy"]).await;
        reading.reads_and_publishes(layout, "regctl manifest get", &["regctl image copy"]).await;
        reading.reads_and_publishes(layout, "oras manifest fetch", &["oras copy"]).await;
        reading.publishes(layout, &["mkdir one", "echo", "crane push"]).await;
    }
}
