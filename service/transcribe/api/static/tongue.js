// The page's language: English, which the page is written in, or Swedish, by the browser's own choice or a person's.

const SWEDISH = {
  "Speech to text": "Tal till text",
  "Looking for the server…": "Söker servern…",
  "This server asks for an API key": "Den här servern vill ha en API-nyckel",
  "Use it": "Använd den",
  "It is kept in this tab only, until you close it.": "Den sparas bara i den här fliken, tills du stänger den.",
  "Recording": "Inspelning",
  "Language": "Språk",
  "Detect it": "Känn igen det",
  "usual": "vanligast",
  "Several in turn": "Flera om vartannat",
  "Which languages, if you know": "Vilka språk, om du vet",
  "At least so many speak": "Minst så många talar",
  "At most so many speak": "Högst så många talar",
  "Add a voice that you know": "Lägg till en röst som du känner",
  "Name of a known speaker": "Namn på en känd talare",
  "Name": "Namn",
  "2 to 10 seconds of this voice": "2 till 10 sekunder av den här rösten",
  "Remove this voice": "Ta bort den här rösten",
  "More choices": "Fler val",
  "Channels": "Kanaler",
  "All as one": "Alla som en",
  "Each by itself": "Var och en för sig",
  "Each by itself where each has its own voice": "Var och en för sig där var och en har sin egen röst",
  "Names and terms, for their spelling": "Namn och termer, för stavningens skull",
  "Result": "Resultat",
  "As it was said": "Som det sades",
  "In English": "På engelska",
  "Tell speakers apart": "Skilj talare åt",
  "Speakers are told apart only in what was said, not in English": "Talare skiljs bara åt i det som sades, inte på engelska",
  "This server cannot tell speakers apart now": "Den här servern kan inte skilja talare åt just nu",
  "Drop a recording here": "Släpp en inspelning här",
  "Audio or video, in nearly any format": "Ljud eller film, i nästan vilket format som helst",
  "File to send": "Fil att skicka",
  "Choose a file": "Välj en fil",
  "Record": "Spela in",
  "Stop at {0}": "Sluta vid {0}",
  "Recording {0}": "Inspelning {0}",
  "To record, open this page over https or on the server itself.": "För att spela in, öppna sidan över https eller på servern själv.",
  "The browser may not use the microphone; allow it for this page.": "Webbläsaren får inte använda mikrofonen; tillåt det för den här sidan.",
  "Transcript": "Utskrift",
  "New recording": "Ny inspelning",
  "Progress": "Förlopp",
  "Cancel": "Avbryt",
  "Cancelled.": "Avbruten.",
  "Play": "Spela",
  "Pause": "Pausa",
  "Position in the recording": "Plats i inspelningen",
  "What was said": "Vad som sades",
  "Doubtful:": "Osäkert:",
  "Speakers:": "Talare:",
  "Rename {0}": "Byt namn på {0}",
  "New name for {0}": "Nytt namn på {0}",
  "Correct": "Rätta",
  "Correct the text at {0}": "Rätta texten vid {0}",
  "Text at {0}": "Text vid {0}",
  "Enter saves, Escape leaves it as it was": "Enter sparar, Escape lämnar det som det var",
  "Saving": "Sparar",
  "Not saved": "Inte sparat",
  "Saved; all downloads have it": "Sparat; det är med i allt som laddas ner",
  "No speech was heard.": "Inget tal hördes.",
  "Heard, but not written:": "Hört, men inte skrivet:",
  "no text found": "ingen text hittades",
  "repetition cut": "upprepning borttagen",
  "doubtful text over silence": "osäker text över tystnad",
  "invented line": "påhittad rad",
  "doubtful text": "osäker text",
  "and {0} more": "och {0} till",
  "Format of the download": "Filens format",
  "Subtitles (SRT)": "Undertexter (SRT)",
  "Subtitles (WebVTT)": "Undertexter (WebVTT)",
  "Text": "Text",
  "Document (DOCX)": "Dokument (DOCX)",
  "Table (TSV)": "Tabell (TSV)",
  "Everything (JSON)": "Allt (JSON)",
  "Signed record (JSON)": "Signerat intyg (JSON)",
  "How subtitles are made": "Hur undertexter görs",
  "Characters in a line": "Tecken per rad",
  "Lines in a subtitle": "Rader per undertext",
  "Characters a second": "Tecken per sekund",
  "Each segment as one subtitle, however long": "Varje segment som en undertext, hur långt det än är",
  "The time of each word as well": "Tiden för varje ord också",
  "Download": "Ladda ner",
  "Copy the text": "Kopiera texten",
  "Copied": "Kopierad",
  "Delete from the server": "Radera från servern",
  "Space": "Mellanslag",
  "play or pause": "spela eller pausa",
  "from line to line": "från rad till rad",
  "five seconds": "fem sekunder",
  "to the next doubtful word": "till nästa osäkra ord",
  "correct the line": "rätta raden",
  "The recording goes to this server and no further. It is removed once it is transcribed, and the text after": "Inspelningen går till den här servern och inte längre. Den tas bort när den är utskriven, och texten efter",
  "an hour": "en timme",
  "{0} hours": "{0} timmar",
  ", or at once when you delete it.": ", eller genast när du raderar den.",
  "For programs:": "För program:",
  "the API": "API:et",
  ", which OpenAI’s clients speak.": ", som OpenAI:s klienter talar.",
  "Ready": "Redo",
  "Not ready: {0}": "Inte redo: {0}",
  "{0} waiting": "{0} väntar",
  "Uploading {0} %": "Skickar {0} %",
  "Number {0} in the queue, about {1} to go": "Nummer {0} i kön, ungefär {1} kvar",
  "Waiting for the worker": "Väntar på sin tur",
  "Listening": "Lyssnar",
  "Listening: {0} of {1}": "Lyssnar: {0} av {1}",
  "Done: {0} of sound": "Klar: {0} ljud",
  "Done: {0} of sound, in {1} s": "Klar: {0} ljud, på {1} s",
  "The server answered {0}.": "Servern svarade {0}.",
  "The server cannot be reached.": "Servern kan inte nås.",
  "The upload was interrupted; is the server running?": "Sändningen avbröts; är servern igång?",
};
const KEPT = { "aria-label": "english", placeholder: "englishHint" }; // where the English of each is, in the dataset

let swedish = (localStorage.getItem("tongue") || navigator.language).startsWith("sv");
const written = new Map(); // of each text or label in the page, the English

// The text in the page's language; {0} and so on stand for the values.
export function say(english, ...values) {
  const text = (swedish && SWEDISH[english]) || english;
  return text.replace(/\{(\d)\}/g, (_, place) => values[place]);
}

// A text as the page has it, which may hold a number of hours.
function translated(text) {
  const hours = text.match(/^([\d.]+) hours$/);
  return hours ? say("{0} hours", hours[1]) : say(text);
}

function remember() {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode.nodeValue.trim();
    if (text && !texts.currentNode.parentElement.closest("#language, #tongue, #lines")) written.set(texts.currentNode, text);
  }
}

function apply() {
  document.documentElement.lang = swedish ? "sv" : "en";
  document.title = say("Speech to text");
  for (const [node, text] of written) node.nodeValue = node.nodeValue.replace(node.nodeValue.trim(), () => translated(text));
  for (const name of Object.keys(KEPT)) {
    for (const element of document.querySelectorAll(`[${name}]`)) {
      element.dataset[KEPT[name]] ??= element.getAttribute(name);
      element.setAttribute(name, say(element.dataset[KEPT[name]]));
    }
  }
  const names = new Intl.DisplayNames([swedish ? "sv" : "en"], { type: "language" });
  for (const option of document.querySelectorAll("#language option")) {
    option.dataset.english ??= option.textContent;
    const { english, code } = option.dataset;
    const name = swedish && code ? capital(names.of(code === "jw" ? "jv" : code)) : english.replace(/ \(usual\)$/, "");
    const usual = english.endsWith(" (usual)") ? ` (${say("usual")})` : "";
    option.textContent = (code ? name : say(english)) + usual;
  }
  const button = document.getElementById("tongue");
  [button.textContent, button.lang] = swedish ? ["In English", "en"] : ["På svenska", "sv"];
}

const capital = (word) => word.charAt(0).toUpperCase() + word.slice(1);

// Puts the page into its language, and lets the button change that; `changed` is called then.
export function wire(changed) {
  remember();
  apply();
  document.getElementById("tongue").addEventListener("click", () => {
    swedish = !swedish;
    localStorage.setItem("tongue", swedish ? "sv" : "en");
    apply();
    changed();
  });
}
