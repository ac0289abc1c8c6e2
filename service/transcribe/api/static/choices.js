// What a person asks for besides the recording: fields of the job, and of its downloads.

const MOST_VOICES = 10;
const LIMITS = ["max_line_width", "max_line_count", "max_cps"];

const find = (id) => document.getElementById(id);
const valueOf = (id) => find(id).value.trim();
const show = (id, yes) => { find(id).hidden = !yes; };

// Whether speakers are to be told apart; a box that cannot be ticked counts for nothing.
function tellsSpeakersApart() {
  const { checked, disabled } = find("tell-speakers");
  return checked && !disabled;
}

// Fields of the job; a list is sent as a field for each.
export function fields() {
  const several = valueOf("language") === "several";
  const speakers = tellsSpeakersApart();
  return {
    language: several ? "auto" : valueOf("language"),
    multilingual: several,
    languages: several && valueOf("languages"),
    task: valueOf("task"),
    channels: valueOf("channels"),
    hotwords: valueOf("hotwords"),
    response_format: "verbose_json",
    speakers,
    ...(speakers && { min_speakers: valueOf("min-speakers"), max_speakers: valueOf("max-speakers"), ...voices() }),
  };
}

function voices() {
  const rows = [...find("voices").children];
  return {
    "known_speaker_names[]": rows.map((row) => row.querySelector(".voice-name").value.trim()),
    "known_speaker_references[]": rows.map((row) => row.querySelector(".voice-file").files[0]),
  };
}

// Fields of a download in this format.
export function downloadFields(format) {
  if (!find("subtitle-options").hidden) {
    const limits = Object.fromEntries(LIMITS.map((name) => [name, valueOf(name)]));
    const subtitles = find("raw").checked ? "raw" : "readable";
    return { ...limits, subtitles, ...(format === "vtt" && { highlight_words: find("highlight_words").checked }) };
  }
  return {};
}

// Shows what goes with what was chosen.
export function refresh() {
  const format = valueOf("format");
  show("which-languages", valueOf("language") === "several");
  show("speakers-more", tellsSpeakersApart());
  show("subtitle-options", !find("results").hidden && ["srt", "vtt"].includes(format));
  show("highlight-option", format === "vtt");
  find("add-voice").disabled = find("voices").children.length >= MOST_VOICES;
}

function addVoice() {
  const row = find("voice").cloneNode(true);
  row.removeAttribute("id");
  row.hidden = false;
  row.querySelector(".voice-remove").addEventListener("click", () => {
    row.remove();
    refresh();
    find("add-voice").focus();
  });
  find("voices").append(row);
  refresh();
  row.querySelector(".voice-name").focus();
}

export function wire() {
  for (const id of ["language", "tell-speakers", "format"]) find(id).addEventListener("change", refresh);
  find("add-voice").addEventListener("click", addVoice);
  refresh();
}
