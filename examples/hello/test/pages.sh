# Every page has a title, a body and no placeholder left: pages.sh DIRECTORY
set -eu
for page in "$1"/*.html; do
  grep -q '<h1>.' "$page" || { echo "$page: no title"; exit 1; }
  grep -q '<p>.' "$page" || { echo "$page: no body"; exit 1; }
  if grep -n '@[A-Z]*@' "$page"; then
    echo "$page: a placeholder is left"
    exit 1
  fi
done
echo "$(ls "$1"/*.html | wc -l) pages are fine"
