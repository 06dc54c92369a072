// Renders a Helm chart as `helm template` does, with the engine of Helm itself: for the tests of
// deploy/helm. Knows no cluster.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path"
	"sort"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
)

// helm CHART RELEASE NAMESPACE [VALUES-AS-JSON]
func main() {
	if len(os.Args) < 4 {
		fail(fmt.Errorf("usage: helm CHART RELEASE NAMESPACE [VALUES-AS-JSON]"))
	}
	values := map[string]any{}
	if len(os.Args) > 4 {
		fail(json.Unmarshal([]byte(os.Args[4]), &values))
	}
	chart, err := loader.LoadDir(os.Args[1])
	fail(err)
	release := common.ReleaseOptions{Name: os.Args[2], Namespace: os.Args[3], Revision: 1, IsInstall: true}
	top, err := util.ToRenderValuesWithSchemaValidation(chart, values, release, common.DefaultCapabilities, false)
	fail(err)
	rendered, err := engine.Render(chart, top)
	fail(err)
	for _, crd := range chart.CRDObjects() {
		fmt.Printf("---\n# Source: %s\n%s\n", crd.Filename, strings.TrimSpace(string(crd.File.Data)))
	}
	names := make([]string, 0, len(rendered))
	for name := range rendered {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		text := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(rendered[name]), "---"))
		if base := path.Base(name); text != "" && strings.HasSuffix(base, ".yaml") {
			fmt.Printf("---\n# Source: %s\n%s\n", name, text)
		}
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "helm:", err)
		os.Exit(1)
	}
}
