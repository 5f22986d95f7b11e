// Shell completion, written from the table of verbs and the table of arguments: what a shell offers is what the program takes.
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>

#include "tensor/base/check.h"
#include "tools/verbs/json_text.h"
#include "tools/verbs/verb_table.h"
#include "tools/verbs/verbs.h"

namespace tessera {

namespace {

using Words = std::vector<std::string>;

struct Values {
  Words words;
  bool files = false, folders = false;
};

Values values_of(const OptionSpec& o) {
  if (o.type == OptionType::kBool) return {{"true", "false"}};
  Values v;
  for (std::string_view rest = o.choices; !rest.empty();) {
    const std::string_view one = rest.substr(0, rest.find('|'));
    rest.remove_prefix(std::min(rest.size(), one.size() + 1));
    if (one == kAnyFile) {
      v.files = true;
    } else if (one == kAnyFolder) {
      v.folders = true;
    } else {
      v.words.emplace_back(one);
    }
  }
  return v;
}

// --no-<name> is offered where it changes something.
bool is_on_by_default(const OptionSpec& o) { return o.type == OptionType::kBool && o.fallback == "true"; }

// What the first word after a verb may be without a name before it, when that is a choice.
Words first_words(const VerbEntry& v) {
  const OptionSpec* o = v.first_word.empty() ? nullptr : find_option(v.first_word, v.verb);
  return o == nullptr ? Words{} : values_of(*o).words;
}

std::string replaced(std::string text, const std::vector<std::pair<std::string, std::string>>& pairs) {
  for (const auto& [from, to] : pairs) {
    for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) text.replace(at, from.size(), to);
  }
  return text;
}

std::string program_names() { return fmt::format("tessera {}", fmt::join(further_names(), " ")); }

// --- bash ----------------------------------------------------------------------------------------------------------------------

// '=' stands alone among the words that bash hands over, unless COMP_WORDBREAKS was changed.
constexpr const char* kBash = R"(
_tessera() {
  local cur=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} program=${COMP_WORDS[0]##*/}
  local verb= first=1 options= more= firsts= name= value= prefix= words= kind= line
  COMPREPLY=()
  if [[ $program == *_seg ]]; then
    verb=${program%_seg}
  elif (( COMP_CWORD == 1 )); then
    while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -W "$_tessera_verbs --help --version" -- "$cur")
    return
  else
    verb=${COMP_WORDS[1]} first=2
  fi
  _tessera_verb
  value=$cur
  if [[ $cur == = ]]; then
    name=$before value=
  elif [[ $before == = ]]; then
    name=${COMP_WORDS[COMP_CWORD-2]}
  elif [[ $cur == *=* ]]; then
    name=${cur%%=*} value=${cur#*=} prefix=${cur%%=*}=
  elif [[ $before == -* ]]; then
    name=$before
  fi
  local joined=$name
  [[ $name == "$before" && $cur != = ]] && joined=
  while [[ $name == -* ]]; do name=${name#-}; done
  name=${name//_/-}
  [[ -n $name ]] && _tessera_values
  if [[ -n $kind ]]; then
    while IFS= read -r line; do COMPREPLY+=("$prefix$line"); done < <(
      compgen -W "$words" -- "$value"
      [[ $kind == files ]] && compgen -f -- "$value"
      [[ $kind == folders ]] && compgen -d -- "$value")
    [[ $kind == files || $kind == folders ]] && compopt -o default -o filenames 2>/dev/null
    [[ $kind != boolean || -n $joined ]] && return
  fi
  if (( COMP_CWORD == first )) && [[ -n $firsts && $cur != -* ]]; then
    while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -W "$firsts" -- "$cur")
  fi
  if [[ -n $cur && $cur != -* ]]; then
    while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -S = -W "$options" -- "${cur//_/-}")
    [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
    return
  fi
  while [[ $cur == -* ]]; do cur=${cur#-}; done
  while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -P -- -W "$options $more help" -- "${cur//_/-}")
}
)";

std::string bash_script() {
  std::string verbs, names, values;
  for (const VerbEntry& v : verb_entries()) {
    Words options, denied;
    for (const OptionSpec& o : option_specs()) {
      if (!(o.verbs & v.verb)) continue;
      options.push_back(shown_name(o.name));
      if (is_on_by_default(o)) denied.push_back("no-" + options.back());
    }
    verbs += fmt::format("{}{}", verbs.empty() ? "" : " ", v.name);
    names += fmt::format("    {})\n      options='{}'\n", v.name, fmt::join(options, " "));
    if (!denied.empty()) names += fmt::format("      more='{}'\n", fmt::join(denied, " "));
    if (const Words first = first_words(v); !first.empty()) names += fmt::format("      firsts='{}'\n", fmt::join(first, " "));
    names += "      ;;\n";
  }
  for (const OptionSpec& o : option_specs()) {
    Words patterns;
    for (const std::string_view verb : verbs_of(o)) patterns.push_back(fmt::format("{}:{}", verb, shown_name(o.name)));
    const Values v = values_of(o);
    const char* kind = o.type == OptionType::kBool ? "boolean" : v.files ? "files" : v.folders ? "folders" : "words";
    values += fmt::format("    {}) kind={} words='{}' ;;\n", fmt::join(patterns, "|"), kind, fmt::join(v.words, " "));
  }
  return fmt::format(
      "# bash completion for {0}; made by: tessera completion bash\n_tessera_verbs='{1}'\n\n"
      "_tessera_verb() {{\n  case $verb in\n{2}  esac\n}}\n\n_tessera_values() {{\n  case $verb:$name in\n{3}  esac\n}}\n"
      "{4}\ncomplete -F _tessera {0}\n",
      program_names(), verbs, names, values, kBash);
}

// --- zsh -----------------------------------------------------------------------------------------------------------------------

constexpr const char* kZsh = R"(
_tessera_any() {  # what kind of path, then words
  local kind=$1 expl
  shift
  (( $# )) && _wanted words expl word compadd -a - argv
  [[ $kind == folders ]] && _files -/ || _files
}

_tessera() {
  local verb
  local -a rows verbs
  if [[ ${words[1]:t} == *_seg ]]; then
    verb=${${words[1]:t}%_seg}
  elif (( CURRENT == 2 )); then
    verbs=(
@VERBS@    )
    _describe -t verbs verb verbs
    _arguments '--help[what the verbs do]' '--version[version of the program]'
    return
  else
    verb=$words[2]
    shift words
    (( CURRENT-- ))
  fi
@ROWS@  _arguments $rows '--help[usage, examples and arguments]'
}

# Sourced: defined for what follows. As a file of $fpath: this is the function's first call.
if [[ $funcstack[1] == _tessera ]]; then
  _tessera "$@"
else
  compdef _tessera @NAMES@
fi
)";

std::string zsh_quoted(std::string_view text) {
  return replaced(std::string(text), {{"\\", "\\\\"}, {"'", "'\\''"}, {"[", "\\["}, {"]", "\\]"}, {":", "\\:"}});
}

std::string zsh_script() {
  std::string verbs, rows;
  for (const VerbEntry& v : verb_entries()) {
    verbs += fmt::format("      '{}:{}'\n", v.name, zsh_quoted(v.purpose));
    if (const Words first = first_words(v); !first.empty()) {
      rows += fmt::format("  [[ $verb == {} ]] && rows+=('1:{}:({})')\n", v.name, v.first_word, fmt::join(first, " "));
    }
  }
  for (const OptionSpec& o : option_specs()) {
    const std::string name = shown_name(o.name), help = zsh_quoted(option_note(o));
    const Values v = values_of(o);
    std::string row;
    if (o.type == OptionType::kBool) {
      row = fmt::format("'--{}=-[{}]::value:(true false)'", name, help);
      if (is_on_by_default(o)) row += fmt::format(" '--no-{}[not: {}]'", name, help);
    } else {
      const std::string action = v.files || v.folders
                                     ? fmt::format(" _tessera_any {} {}", v.files ? "files" : "folders", fmt::join(v.words, " "))
                                 : v.words.empty() ? " "
                                                   : fmt::format("({})", fmt::join(v.words, " "));
      row = fmt::format("'--{}=[{}]:{}:{}'", name, help, name, action);
    }
    rows += fmt::format("  [[ $verb == ({}) ]] && rows+=({})\n", fmt::join(verbs_of(o), "|"), row);
  }
  const std::string names = program_names();
  return fmt::format("#compdef {}\n# zsh completion; made by: tessera completion zsh\n{}", names,
                     replaced(kZsh, {{"@VERBS@", verbs}, {"@ROWS@", rows}, {"@NAMES@", names}}));
}

// --- fish ----------------------------------------------------------------------------------------------------------------------

constexpr const char* kFish = R"(
function __tessera_verb  # whether the verb is one of these
  set -l words (commandline -opc)
  set -l program (string replace -r '.*/' '' -- $words[1])
  set -l verb $words[2]
  string match -q '*_seg' -- $program; and set verb (string replace -r '_seg$' '' -- $program)
  contains -- "$verb" $argv
end

function __tessera_after  # whether so many words stand before this one
  test (count (commandline -opc)) -eq $argv[1]
end

)";

std::string fish_quoted(std::string_view text) { return replaced(std::string(text), {{"\\", "\\\\"}, {"'", "\\'"}}); }

std::string fish_script() {
  std::string text = fmt::format("# fish completion for {}; made by: tessera completion fish\n{}", program_names(), kFish);
  text += "complete -c tessera -n '__tessera_after 1' -l help -d 'what the verbs do'\n";
  text += "complete -c tessera -n '__tessera_after 1' -l version -d 'version of the program'\n";
  for (const VerbEntry& v : verb_entries()) {
    text += fmt::format("complete -c tessera -n '__tessera_after 1' -a {} -d '{}'\n", v.name, fish_quoted(v.purpose));
    if (const Words first = first_words(v); !first.empty()) {
      text +=
          fmt::format("complete -c tessera -n '__tessera_after 2; and __tessera_verb {}' -a '{}'\n", v.name, fmt::join(first, " "));
    }
  }
  text += fmt::format("\nfor program in {}\n  complete -c $program -f\n", program_names());
  for (const OptionSpec& o : option_specs()) {
    const std::string condition = fmt::format("'__tessera_verb {}'", fmt::join(verbs_of(o), " ")), name = shown_name(o.name),
                      help = fish_quoted(option_note(o));
    const Values v = values_of(o);
    std::string value;
    if (o.type != OptionType::kBool) {
      Words words = v.words;
      if (v.folders) words.emplace_back("(__fish_complete_directories)");
      value = v.files ? " -r -F" : " -x";
      if (!words.empty()) value += fmt::format(" -a '{}'", fmt::join(words, " "));
    }
    text += fmt::format("  complete -c $program -n {} -l {}{} -d '{}'\n", condition, name, value, help);
    if (is_on_by_default(o)) text += fmt::format("  complete -c $program -n {} -l no-{} -d 'not: {}'\n", condition, name, help);
  }
  return text + "end\n";
}

}  // namespace

int run_completion(const Config& config) {
  const std::string& shell = config.text("shell");
  if (shell.empty()) throw Error(ErrorCode::kUsage, "for which shell?", {}, "tessera completion bash, zsh or fish");
  const std::string text = shell == "bash" ? bash_script() : shell == "zsh" ? zsh_script() : fish_script();
  if (config.flag("json")) {
    print_json({{"command", "completion"}, {"shell", shell}, {"script", text}});
  } else {
    fmt::print("{}", text);
  }
  return 0;
}

}  // namespace tessera
